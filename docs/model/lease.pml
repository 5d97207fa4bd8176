/*
 * A lease: one row, three clients, and everything between them that can go wrong.
 *
 * Each step of a client is atomic. A client that takes no step while time goes by is one that was
 * stopped, or has died. See README.md for what is left out, and check for how this is run.
 */

#include "row.pml"

/* alone is called when a client begins to trust its lease, or trusts it for longer. */
inline alone() {
	for (other : 0 .. CLIENTS - 1) {
		assert(other == id || !trusts(other)) /* never two that trust their lease */
	}
	other = 0
}

/* hear ends an attempt. */
inline hear() {
	me.call.op = NONE; me.call.first = 0; me.call.last = 0;
	me.answer = NONE; me.answered = 0; me.until = 0
}

inline leave() {
	me.state = GONE; me.doubt = false; me.trusted = false; me.freed = false;
	me.confirmed = 0; me.reach = 0; me.deadline = 0
}

/* arrive is the server's: the attempt is carried out, and the answer on its way. */
inline arrive() {
	execute(me.call);
	me.answer = said;
	if
	:: said == DONE && me.call.op == ACQUIRE ->
		me.answered = row.time;
#ifndef AGE_IGNORED
		/* A lock that an attempt before this one took is some way into its time. */
		if
		:: age > 0 -> me.until = (me.until > age -> me.until - age : 0)
		:: else
		fi
#endif
	:: said == DONE && me.call.op == RENEW -> me.answered = row.time
	:: said == NOT_YOURS && me.call.op == RENEW ->
		assert(!(mine && !expired && trusts(id))) /* no lease is called lost that is well */
	:: said == NOT_YOURS && me.call.op == RELEASE ->
		if
		:: mine && !expired -> assert(false) /* a release frees what is the caller's */
		:: !in_doubt -> assert(!me.freed) /* no refusal of what was released */
		:: run_again -> assert(!me.freed) /* no refusal of what was released */
		:: else ->
			/* Nil if the lease was trusted at the sending, otherwise the outcome is unknown. */
			assert(me.freed || !me.trusted || !me.tick || row.tick > me.tick) /* no false nil */
		fi
	:: said == ALREADY_RUN && row.tick == me.tick && !row.locked ->
		assert(begun[me.tick]) /* no tick is run by nobody */
#ifdef LATE_ACQUIRE
	:: said == ALREADY_RUN && row.tick == me.tick && row.locked ->
		assert(begun[me.tick] || client[row.holder].state != GONE) /* no tick is held by nobody */
#endif
	:: else
	fi
}

/* receive is what the client makes of an answer. */
inline receive() {
#ifdef FROM_REPLY
	me.until = now + GOOD_FOR;
#endif
	if
	:: me.state == ASKING && me.answer == HELD
	:: me.state == ASKING && me.answer == ALREADY_RUN -> d_step { leave() }
	:: me.state == ASKING && me.answer == DONE ->
		me.doubt = false;
		me.confirmed = me.answered;
		if
		:: now < me.until ->
			d_step {
				assert(!over[me.tick]); /* a tick is run once */
				begun[me.tick] = (me.tick != 0);
				me.deadline = me.until;
				me.state = HOLDING;
				alone()
			}
		:: me.state = GIVING /* too late, or there was a signal: the run does not begin */
		fi
	:: me.state == HOLDING && me.answer == DONE -> d_step {
		me.confirmed = me.answered;
#ifdef DOUBT_FORGOTTEN
		me.reach = 0;
#endif
		if
		:: !open -> me.reach = 0
		:: else
		fi;
		me.deadline = me.until;
		if
		:: trusts(id) -> alone()
		:: else
		fi }
	:: me.state == HOLDING && me.answer == NOT_YOURS -> d_step { leave() }
	:: me.state == RELEASING -> d_step { leave() }
	:: me.state == GIVING ->
		leave();
#ifdef REUSED_IDS
		me.state = IDLE
#endif
	fi;
	d_step { hear() }
}

/* attempt sends a statement, which is carried out and answered at once, or there is trouble. */
inline attempt(what) {
	me.call.op = what;
	me.call.first = me.confirmed;
#ifdef RELEASE_BOUNDED
	me.call.last = (what == RENEW || what == RELEASE -> latest : ANY);
#else
	me.call.last = (what == RENEW -> latest : ANY);
#endif
	me.answer = PENDING;
	me.until = now + GOOD_FOR;
	if
	:: d_step { arrive() }; receive()
	:: troubles < TROUBLES -> troubles++
	fi
}

proctype Fleet(byte id) {
	end: do
	/* Acquire. The clients are alike: they begin in the order of their numbers. */
	:: atomic { me.state == IDLE && (id == 0 || client[id - 1].state != IDLE) ->
		me.state = ASKING;
#ifdef TICKS
		if
		:: me.tick == 0 -> me.tick = 2
		:: me.tick == 0 -> me.tick = 4
		:: me.tick != 0
		fi;
#endif
		attempt(ACQUIRE) }
	:: atomic { me.state == ASKING && idle -> attempt(ACQUIRE) }
	:: atomic { me.state == ASKING && idle && !me.doubt -> leave() }
	:: atomic { me.state == ASKING && idle && me.doubt -> me.doubt = false; me.state = GIVING }

	/* Renew. */
	:: atomic { trusts(id) && idle && me.deadline < now + GOOD_FOR -> attempt(RENEW) }

	/* Check, in a transaction of the job's, at any moment. */
	:: d_step { trusts(id) ->
		assert(mine && me.confirmed <= row.time); /* no false nil */
#ifndef CHECK_IN_FLIGHT
		if
		:: !idle -> assert(row.time <= widest) /* no lease is called lost that is well */
		:: else -> assert(row.time <= latest) /* no lease is called lost that is well */
		fi
#else
		assert(row.time <= latest) /* no lease is called lost that is well */
#endif
		}

	/* Release, at the end of the job or of the lease; its errors are not tried again for ever. */
	:: atomic { me.state == HOLDING && idle ->
		me.trusted = trusts(id); me.state = RELEASING; attempt(RELEASE) }
	:: atomic { me.state == RELEASING && idle -> attempt(RELEASE) }
	:: atomic { me.state == RELEASING && idle -> leave() }

	/* Give back what never began. */
	:: atomic { me.state == GIVING && idle -> attempt(GIVE_BACK) }
	:: atomic { me.state == GIVING && idle -> leave() }

	/* Trouble: an attempt arrives later, its answer comes later, or the client gives it up. */
	:: d_step { me.answer == PENDING -> arrive() }
	:: atomic { !idle && me.answer != PENDING -> receive() }
	:: atomic { !idle ->
		if
		:: me.answer == PENDING ->
			me.late.op = me.call.op; me.late.first = me.call.first; me.late.last = me.call.last
		:: true /* it was carried out, or never arrives */
		fi;
		if
		:: me.call.op != RENEW -> me.doubt = true
#ifndef STALE_TERM
		:: me.call.op == RENEW && me.reach < me.call.last -> me.reach = me.call.last
#endif
		:: else
		fi;
		d_step { hear() } }
	:: d_step { me.late.op != NONE ->
		execute(me.late);
		me.late.op = NONE; me.late.first = 0; me.late.last = 0 }
	od
}

proctype Clock() {
	end: do
	:: d_step { now < END ->
		now++;
		for (other : 0 .. CLIENTS - 1) { /* all that is past is alike */
			client[other].until = (client[other].until <= now -> 0 : client[other].until);
			client[other].deadline = (client[other].deadline <= now -> 0 : client[other].deadline)
		}
		other = 0 }
	:: behind = !behind
	od
}

init {
	atomic {
		for (other : 0 .. CLIENTS - 1) {
			client[other].state = IDLE;
			client[other].call.op = NONE; client[other].answer = NONE; client[other].late.op = NONE;
			run Fleet(other)
		}
		run Clock()
	}
}
