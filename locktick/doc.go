// Package locktick runs each tick of a schedule once over a fleet, where all instances fire it: driven by a loop of its own that is
// aligned to the wall clock, by a ticker, or by HTTP requests that a scheduler sends to all instances. It needs the standard
// library only. Packages lockcron and lockgocron do the same for schedulers of others, with the [Guard] of this package.
//
//	guard := locktick.Guard{Lock: lock.New(db), Job: lock.Job{ComponentName: "shop", JobName: "report", MaxDuration: time.Minute}}
//	err := guard.Loop(ctx, locktick.Every(5*time.Minute), report) // until ctx ends
//
// Every instance runs this, and at 12:00, 12:05 and so on one of them calls report. It is the one whose clock is ahead, or which
// is the first to reach the database; if it dies, the others take over with the next tick.
//
// # The name of a tick
//
// A tick is known by its scheduled time, which is the same on all instances whatever their clocks say: the lock's row keeps
// the name of the last one, and who comes with that name or an earlier one is refused, however late (see [lock.Job], Once). So
//
//   - never name a tick by a reading of the clock. A time that is not a whole second is refused for that reason.
//   - a tick needs a JobName of its own: two jobs with one JobName would take each other's ticks for their own.
//   - ticks are at least a second apart.
//   - a tick is not made up for. One that nobody could take before a later one was run falls away, and one whose run has failed
//     is not run again. Only if the instance that runs it dies, and another fires the same tick after the lock has expired, it is.
//
// Schedules that begin when the process starts, such as that of a [time.Ticker], have no ticks in common. Either round the
// time of the tick down to the period, which gives one run in each period, or set Spacing in the [lock.Job] and give no tick at all.
//
// # A run that takes longer than the period
//
// The lock is kept until the run ends. Ticks that are due meanwhile are refused, with the outcome [Held], and fall away; unless
// Wait in the [lock.Job] says that they are to wait, and for how long. Then the instances that don't run wait for the lock, and one
// of them runs the next tick as soon as it is free. Set Wait also where ticks follow each other so closely that one instance's clock
// is at a tick when another's is at the next: both may ask at once, and the later tick is not to fall away for the earlier.
//
// # What is told
//
// [Guard] tells what has become of each tick: Report, or if it is nil the default logger of log/slog. A tick that could not be
// decided, because the database failed, is not run.
package locktick
