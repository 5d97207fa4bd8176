/*
 * The row, the clients' side of it, and the statements as the server carries them out.
 */

#ifndef CLIENTS
#define CLIENTS 3
#endif
#ifndef END
#define END 6 /* the last moment */
#endif
#ifndef TROUBLES
#define TROUBLES 2 /* how many attempts are not carried out and answered at once */
#endif

#define TTL    3 /* units of time */
#define MARGIN 1 /* what the server's clock may jump ahead by */
#define STEP   4 /* a unit of time, in the much smaller unit of lock_time */
#define ANY    255

mtype = { IDLE, ASKING, HOLDING, RELEASING, GIVING, GONE }         /* states of a client */
mtype = { NONE, ACQUIRE, RENEW, RELEASE, GIVE_BACK }               /* statements */
mtype = { PENDING, DONE, NOT_YOURS, HELD, ALREADY_RUN }            /* answers */

typedef Row {
	bool locked;
	byte holder;
	byte tick; /* the run's name: 2 or 4 for a tick, the odd number below for one given back */
	byte time /* lock_time */
}

typedef Statement {
	mtype op;
	byte first, last /* the term: lock_time must be in between */
}

typedef Client {
	mtype state;
	byte tick;           /* 0 for a lock without ticks */
	Statement call;      /* the attempt under way */
	mtype answer;        /* to it, PENDING until it has arrived */
	byte answered;       /* the lock_time in the answer */
	byte until;          /* the deadline that a good answer would bring */
	Statement late;      /* an attempt that was given up, and that the server may still carry out */
	bool doubt;          /* an attempt to acquire or to release has an unknown outcome */
	bool trusted;        /* the lease was trusted when its release was sent */
	byte confirmed;      /* lock_time, as last confirmed */
	byte reach;          /* renewals of unknown outcome may move any lock_time up to this one */
	byte deadline;       /* until when the lease is trusted, on the client's monotonic clock */
	bool freed           /* what only we can see: the release was carried out */
}

Row row;
Client client[CLIENTS];
byte now = 1;       /* as seen by monotonic clocks; the server's may be behind */
bool behind;        /* the server's clock has stepped back by MARGIN */
byte troubles;
bool begun[5], over[5]; /* by tick: a run has begun; a run was released */

hidden mtype said;  /* by the last statement */
hidden byte other;  /* a loop's */

#define me        client[id]
#define idle      (me.call.op == NONE)
#define clock     (STEP * (now - (behind -> MARGIN : 0)))
#define mine      (row.locked && row.holder == id)
#define in(s)     (s.first <= row.time && row.time <= s.last)
#define age       (clock / STEP - row.time / STEP)
#ifdef CLOCK_ONLY
#define next      clock
#else
#define next      ((clock > row.time) -> clock : row.time + 1)
#endif

#ifdef CLIENT_CLOCK /* the client says what time it is, and each is ahead of the one before */
#define expired   (clock + id * STEP >= row.time + TTL * STEP)
#else
#define expired   (clock >= row.time + TTL * STEP)
#endif

#ifdef NO_DEADLINE /* a lease is trusted until its holder is told otherwise */
#define trusts(i) (client[i].state == HOLDING)
#else
#define trusts(i) (client[i].state == HOLDING && now < client[i].deadline)
#endif

#ifdef NO_MARGIN
#define GOOD_FOR  TTL
#else
#define GOOD_FOR  (TTL - MARGIN)
#endif

/* The last lock_time of the term. A renewal in doubt may have moved it. */
#define widest    (me.confirmed + TTL * STEP)
#define open      (me.confirmed <= me.reach)
#define latest    (open -> widest : me.confirmed)

#ifdef RELEASE_REFUSED
#define in_doubt  false
#else
#define in_doubt  me.doubt
#endif

/* Nobody is given a tick that was released. So the lease had expired before. */
#ifdef SAME_TICK
#define run_again false
#else
#define run_again (me.tick && row.holder != id && row.tick <= me.tick)
#endif

/* acquire is refused, changes nothing since the caller holds the lock, or takes it. */
inline acquire() {
	if
	:: mine && !expired -> said = DONE
	:: else ->
		if
		:: me.tick && (row.tick > me.tick ||
		   row.tick == me.tick && (!row.locked || !expired)) -> said = ALREADY_RUN
		:: else ->
			if
			:: row.locked && !expired -> said = HELD
			:: else ->
				assert(next > row.time); /* tokens grow */
				row.locked = true; row.holder = id; row.tick = me.tick; row.time = next;
				said = DONE
			fi
		fi
	fi
}

/* execute carries out a statement at its arrival. */
inline execute(s) {
	said = NOT_YOURS;
	if
	:: s.op == ACQUIRE -> acquire()
	:: s.op == RENEW && mine && in(s) && !expired -> row.time = next; said = DONE
#ifdef ANY_HOLDER
	:: s.op == RELEASE && row.locked ->
#else
	:: s.op == RELEASE && mine && in(s) ->
#endif
		row.locked = false; me.freed = true; over[row.tick] = (row.tick != 0); said = DONE
	:: s.op == GIVE_BACK && mine && in(s) ->
		row.locked = false; said = DONE;
#ifndef GIVEN_BACK_AS_RUN
		if
		:: row.tick -> row.tick--
		:: else
		fi
#endif
	:: else
	fi
}
