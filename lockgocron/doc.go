// Package lockgocron runs each tick of a github.com/go-co-op/gocron/v2 once over a fleet, where the scheduler of every instance
// fires it: [Locker] is a gocron.Locker. [Elector] is a gocron.Elector: one instance runs all jobs, while it leads.
//
//	nightly, err := lockgocron.Crontab("0 3 * * *", false, time.UTC)
//	…
//	locker := &lockgocron.Locker{
//		Guard:     locktick.Guard{Lock: lock.New(db), Job: lock.Job{ComponentName: "shop", TTL: time.Minute}},
//		Schedules: map[string]locktick.Schedule{"report": nightly},
//	}
//	s, err := gocron.NewScheduler(gocron.WithLocation(time.UTC), gocron.WithDistributedLocker(locker))
//	…
//	_, err = s.NewJob(gocron.CronJob("0 3 * * *", false), gocron.NewTask(locker.Func("report", report)), gocron.WithName("report"))
//	…
//	s.Start()
//
// # Locker or Elector
//
// A Locker decides about each tick, and the database remembers the last one that was run: no tick is run twice, also not by an instance
// whose clock is behind and fires it when the first has long finished. An Elector says who runs, and remembers nothing: while one instance
// leads, each tick is run once, but when the next leader's clock is behind, it runs again what the last leader has just run, and when
// it is ahead, ticks fall away. gocron asks no Locker where it has an Elector; where an Elector is to be had and no tick may be run
// twice, let the task call [locktick.Guard.Run].
package lockgocron
