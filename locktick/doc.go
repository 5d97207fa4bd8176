// Package locktick runs each tick of a schedule once in a fleet whose instances all fire it. Its
// own loop fires ticks by the wall clock; a ticker, or HTTP requests that a scheduler sends to
// all instances, may do so instead. Packages lockcron and lockgocron use its [Guard] for other
// schedulers. It needs only the standard library.
//
//	job := lock.Job{ComponentName: "shop", JobName: "report"}
//	guard := locktick.Guard{Lock: lock.New(db), Job: job}
//	err := guard.Loop(ctx, locktick.Every(5*time.Minute), report) // until ctx ends
//
// Every instance runs this, and at 12:00, 12:05 and so on one of them calls report: the first to
// reach the database. If it dies, the others go on with the next tick.
//
// # The name of a tick
//
// A tick is identified by its scheduled time, which is the same on all instances, whatever their
// clocks say. The lock's row keeps the last one. An instance that fires that tick or an earlier
// one is refused, however late it is (see Tick in [lock.Job]). So
//
//   - a tick is never a reading of the clock. One that is not in whole seconds is an error.
//   - each job needs its own JobName: two with one name would refuse each other's ticks.
//   - a tick that nobody could run before a later one was run is skipped.
//   - a run that failed counts, unless RetryFailed in the [lock.Job] leaves its tick free. If its
//     instance dies, the tick is free once the lock has expired. In both cases it is run again if
//     an instance fires it again.
//
// Schedules that begin when the process starts, such as that of a [time.Ticker], have no common
// ticks. Either round the time of the tick down to the period, for one run in each period, or set
// Spacing in the [lock.Job] and pass no tick.
//
// # Clocks
//
// The database's clock decides. An instance with a slow clock fires ticks that have been run, and
// is refused. An instance with a fast clock fires ticks that are not due yet. Up to TickAhead in
// the [lock.Job], a minute by default, it runs them early. Beyond that it is refused with the
// outcome [Ahead], an error, and the other instances run the ticks when they are due.
//
// # A run that takes longer than the period
//
// The lock is kept until the run ends. Ticks that are due meanwhile are refused with the outcome
// [Held] and skipped, unless Wait in the [lock.Job] lets them wait. Then a waiting instance runs
// the next tick as soon as the lock is free. Set Wait also if ticks follow each other so closely
// that the clocks of two instances may be at different ticks.
//
// # Reports
//
// [Guard] passes the outcome of each tick to its Report, or logs it with the default logger of
// log/slog. If the database fails, the tick is not run.
package locktick
