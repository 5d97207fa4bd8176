// Package lockgocron runs each tick of a github.com/go-co-op/gocron/v2 once in a fleet, where the
// scheduler of every instance fires it. [Locker] is a gocron.Locker. [Elector] is a
// gocron.Elector: one instance leads, and runs all jobs.
//
//	nightly, err := lockgocron.Crontab("0 3 * * *", false, time.UTC)
//	…
//	locker, err := lockgocron.NewLocker(locktick.Guard{
//		Lock: lock.New(db),
//		Job:  lock.Job{ComponentName: "shop"},
//	})
//	…
//	err = locker.Schedule("report", nightly)
//	…
//	s, err := gocron.NewScheduler(gocron.WithLocation(time.UTC),
//		gocron.WithDistributedLocker(locker))
//	…
//	_, err = s.NewJob(gocron.CronJob("0 3 * * *", false),
//		gocron.NewTask(locker.Func("report", report)), gocron.WithName("report"))
//	…
//	s.Start()
//
// # Locker or Elector
//
// A Locker decides about each tick, and the database remembers the last one that was run. No tick
// is run twice, not even by an instance whose clock is so late that it fires a tick after the run
// has ended.
//
// An Elector decides who runs, and remembers nothing. While one instance leads, each tick is run
// once. If the next leader's clock is late, it repeats the last tick of its predecessor; if it is
// early, ticks are skipped.
//
// With an Elector, gocron doesn't use a Locker. If you want an Elector and no tick may be run
// twice, let the task call [locktick.Guard.Run].
package lockgocron
