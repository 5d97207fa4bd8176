// Package locktick runs each tick of a schedule once over a fleet whose instances all fire it:
// driven by a loop of its own that is aligned to the wall clock, by a ticker, or by HTTP requests
// that a scheduler sends to all instances. It needs the standard library only. Packages lockcron
// and lockgocron do the same for schedulers of others, with the [Guard] of this package.
//
//	job := lock.Job{ComponentName: "shop", JobName: "report"}
//	guard := locktick.Guard{Lock: lock.New(db), Job: job}
//	err := guard.Loop(ctx, locktick.Every(5*time.Minute), report) // until ctx ends
//
// Every instance runs this, and at 12:00, 12:05 and so on one of them calls report: the first to
// reach the database. If it dies, the others take over with the next tick.
//
// # The name of a tick
//
// A tick is known by its scheduled time, which is the same on all instances whatever their clocks
// say. The lock's row keeps the last one, and who comes with that one or an earlier one is
// refused, however late (see Tick in [lock.Job]). So
//
//   - a tick is never a reading of the clock. One that is not in whole seconds is an error.
//   - each job needs a JobName of its own: two with one name would take each other's ticks for
//     their own.
//   - a tick that nobody could run before a later one was run falls away.
//   - a run that has failed counts, unless RetryFailed in the [lock.Job] leaves its tick free. If
//     the instance that runs it dies, the tick is free once the lock has expired. In both cases it
//     is run again if an instance fires it again.
//
// Schedules that begin when the process starts, such as that of a [time.Ticker], have no ticks in
// common. Either round the time of the tick down to the period, for one run in each period, or
// set Spacing in the [lock.Job] and give no tick at all.
//
// # Clocks
//
// The database's clock decides. An instance whose clock is behind fires ticks that have been run,
// and is refused. An instance whose clock is ahead fires ticks that are not due yet: up to
// TickAhead in the [lock.Job], which is a minute, it runs them early; beyond, it is refused with
// the outcome [Ahead], an error, and the others go on. So every instance fires, and one runs,
// whatever their clocks say, even for as long as they live.
//
// # A run that takes longer than the period
//
// The lock is kept until the run ends. Ticks that are due meanwhile are refused, with the outcome
// [Held], and fall away, unless Wait in the [lock.Job] says how long they wait. Then one of the
// waiting instances runs the next tick as soon as the lock is free. Set Wait also if ticks follow
// each other so closely that one instance's clock is at a tick when another's is at the next.
//
// # What is told
//
// [Guard] tells the outcome of each tick to its Report, or else to the default logger of
// log/slog. A tick that could not be decided, because the database failed, is not run.
package locktick
