/*
 * A transaction whose snapshot may be older than the row: the caller of Check, or of Lock, in a
 * transaction of its own, and the row that moves on without it.
 */

#define TIMES 4 /* the row's last lock_time */

mtype = { NOTHING, NIL, LOST, HELD, SERIALIZATION_ERROR } /* what a call returns */

typedef Row {
	byte holder; /* 0 nobody, 1 the caller, 2 another */
	byte time    /* lock_time */
}

Row row, seen;       /* as it is, and as the transaction's snapshot shows it */
byte confirmed;      /* the caller's lock_time, as it knows it; 0 if it holds no lease */
bool fenced;         /* the transaction has locked the row */
mtype check, locked; /* what Check and Lock returned */

#define mine(r)  (r.holder == 1)
#define changed  (row.time != seen.time || row.holder != seen.holder)

/* Others write the row, unless the transaction has locked it. */
proctype World() {
	end: do
	/* The caller renews its lease, or acquires one. */
	:: atomic { !fenced && row.time < TIMES -> row.time++; row.holder = 1; confirmed = row.time }
	/* Another takes it over. It is released. */
	:: atomic { !fenced && row.time < TIMES -> row.time++; row.holder = 2 }
	:: atomic { !fenced && row.holder != 0 -> row.holder = 0 }
	od
}

inline read() { seen.holder = row.holder; seen.time = row.time }

/*
 * lock is SELECT … FOR UPDATE: at REPEATABLE READ it is an error if the row is not as the
 * snapshot shows it.
 */
inline lock(result, old_snapshot) {
	if
	:: old_snapshot && changed -> result = SERIALIZATION_ERROR
	:: else -> fenced = true; read()
	fi
}

/* plain is a read that locks nothing: at REPEATABLE READ it shows the snapshot. */
inline plain(old_snapshot) {
	if
	:: old_snapshot
	:: else -> read()
	fi
}

proctype Transaction() {
	bool repeatable, well;
	if
	:: repeatable = true
	:: repeatable = false
	fi;
	atomic { read() } /* its first statement */
	if
	/* Check, of the lease as it is known at the call. */
	:: atomic { confirmed != 0 ->
#ifdef PLAIN_CHECK
		plain(repeatable);
#else
		lock(check, repeatable);
#endif
		if
		:: check == SERIALIZATION_ERROR
		:: check == NOTHING && mine(seen) && seen.time == confirmed -> check = NIL
		:: else -> check = LOST
		fi;
		assert(check != NIL || mine(row)); /* no false nil */
		well = mine(row) && row.time == confirmed;
		assert(check != LOST || !well) /* no lease is called lost that is well */
		}
	/* Lock, by a caller that may hold the lock already. */
	:: atomic {
		plain(repeatable);
		if
		:: !mine(seen) -> locked = HELD
		:: mine(seen) ->
#ifdef PLAIN_LOCK
			if
			:: repeatable
			:: else -> lock(locked, false)
			fi;
#else
			lock(locked, repeatable);
#endif
			if
			:: locked == NOTHING -> locked = (mine(seen) -> NIL : HELD)
			:: else
			fi
		fi;
		assert(locked != NIL || mine(row)) } /* no false nil */
	fi;
	/* The commit. What was confirmed still holds. */
	atomic {
		assert(check != NIL && locked != NIL || mine(row)); /* no false nil */
		fenced = false
	}
}

init {
	atomic { check = NOTHING; locked = NOTHING; run World(); run Transaction() }
}
