// Package lockgocron runs each tick of a github.com/go-co-op/gocron/v2 once over a fleet, where
// the scheduler of every instance fires it: [Locker] is a gocron.Locker. [Elector] is a
// gocron.Elector: one instance runs all jobs, while it leads.
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
// A Locker decides about each tick, and the database remembers the last one that was run: no tick
// is run twice, also not by an instance whose clock is behind and fires it when the first has long
// finished. An Elector says who runs, and remembers nothing: while one instance leads, each tick
// is run once, but if the next leader's clock is behind, it runs again what the last leader has
// just run, and if it is ahead, ticks fall away. gocron asks no Locker if it has an Elector; if
// you want an Elector and no tick may be run twice, let the task call [locktick.Guard.Run].
package lockgocron
