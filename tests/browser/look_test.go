package browser

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

func TestPage_takeover(t *testing.T) {
	l, clock := memory()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	w := open(t, serve(t, l, lockhttp.Options{TTL: anHour}).url)
	w.untilText("#locks tbody", "instance-1")
	w.untilText("#connection", "live")
	require.Equal(t, "held", w.text("#locks tbody .state"))
	require.Zero(t, eval[int](w, `[...document.querySelectorAll("#locks .actions")].filter(
		(e) => e.checkVisibility()).length`), "nobody may change it")

	clock.Advance(46 * time.Minute)
	w.untilText("#locks tbody .age", "46 min of 1 h")
	w.untilText("#locks tbody .state", "late")
	const bar = "document.querySelector('[role=progressbar]').ariaValueNow"
	require.Equal(t, "77", eval[string](w, bar))

	clock.Advance(15 * time.Minute)
	w.untilText("#locks tbody .state", "expired")
	w.untilText("#locks tbody .age", "1 h 1 min of 1 h")
	w.untilText("#live", "shop / backup has expired")

	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
	w.untilText("#locks tbody .holder", "instance-2")
	require.Equal(t, "held", w.text("#locks tbody .state"))
	w.untilText("#changes li", "shop / backup: instance-1, run run-1 → instance-2, run run-2")
	require.Contains(t, w.text("#changes li"), "Changed hands between two looks.")
	w.untilText("#live", "shop / backup is now held by instance-2, run run-2")
}

func TestPage_takeover_by_the_process(t *testing.T) {
	var events lockhttp.Events
	l, clock := memory(func(o *lock.Options) { o.Observer = events.Observe })
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Minute))
	w := open(t, serve(t, l, lockhttp.Options{Events: &events}).url)
	w.untilText("#locks tbody .holder", "instance-1")
	require.Equal(t, "No changes yet.", w.text("#no-changes"))
	clock.Advance(2 * time.Minute)
	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Minute))
	w.untilText("#changes", "Taken over by this process: the lock had expired.")
	w.untilText("#locks tbody .holder", "instance-2")
	require.Equal(t, 1, eval[int](w, "document.querySelectorAll('#changes li').length"))
}

// The page leaves a request open, which is answered when there is word of a release.
func TestPage_told(t *testing.T) {
	l, _ := memory()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	subscribed := make(chan func(), 1)
	w := open(t, serve(t, l, lockhttp.Options{Subscribe: func(woken func()) func() {
		subscribed <- woken
		return func() {}
	}}).url)
	w.untilText("#locks tbody .holder", "instance-1")
	var tell func()
	select {
	case tell = <-subscribed:
	case <-w.ctx.Done():
		t.Fatal("the page leaves no request open")
	}
	require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
	tell()
	w.untilText("#locks tbody .state", "free")
	w.click("#counters .held") // which doesn't wait
	w.untilText("#none", "No lock fits.")
	w.click("#counters .held")
	w.untilText("#locks tbody .state", "free")
	w.untilText("#connection", "live")

	const held = `performance.getEntriesByType("resource").filter((e) => e.name.includes("after="))`
	w.until(held + ".length >= 3")
	require.Empty(t, eval[[]float64](w, held+`.map((e, i, all) => i ? e.startTime -
		all[i-1].startTime : 1000).filter((ms) => ms < 200)`), "however fast the answers are")
}

func TestPage_database_away(t *testing.T) {
	for name, c := range map[string]struct {
		o     lockhttp.Options
		says  string
		never string
	}{
		"for whom the service lets look": {lockhttp.Options{Authorize: anything},
			"no such table: locks", "Authorize"},
		"for whoever passes": {lockhttp.Options{},
			"The reason is only shown where lockhttp.Options.Authorize is set.", "no such table"},
	} {
		t.Run(name, func(t *testing.T) {
			db := sqlite(t)
			l := lock.New(db)
			require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
			w := open(t, serve(t, l, c.o).url).withAxe()
			w.untilText("#locks tbody", "instance-1")

			_, err := db.Exec("ALTER TABLE locks RENAME TO elsewhere")
			require.NoError(t, err)
			w.untilText("#banner", "The table can’t be read. What you see is as of ")
			require.Contains(t, w.text("#banner"), c.says)
			require.NotContains(t, w.text("body"), c.never)
			require.Equal(t, "database not readable", w.text("#connection"))
			require.Contains(t, w.text("#locks tbody"), "instance-1")
			w.check("the table can't be read")
			w.picture("error")

			_, err = db.Exec("ALTER TABLE elsewhere RENAME TO locks")
			require.NoError(t, err)
			w.untilText("#connection", "live")
			w.until("document.querySelector('#banner').hidden")
		})
	}
}

func TestPage_connection_lost(t *testing.T) {
	l, _ := memory()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	s := serve(t, l, lockhttp.Options{})
	w := open(t, s.url).withAxe()
	w.untilText("#connection", "live")
	s.away.Store(true)
	w.untilText("#banner", "Connection lost since ")
	require.Contains(t, w.text("#locks tbody"), "instance-1")
	w.check("the connection is lost")
	w.picture("lost")
	require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
	s.away.Store(false)
	w.untilText("#locks tbody .state", "free")
	w.untilText("#connection", "live")
	w.untilText("#live", "live again")
}

func TestPage_hidden(t *testing.T) {
	l, _ := memory()
	s := serve(t, l, lockhttp.Options{})
	w := open(t, s.url)
	w.untilText("#connection", "live")
	hide := func(yes bool) {
		eval[bool](w, fmt.Sprintf(`Object.defineProperty(document, "hidden",
			{value: %t, configurable: true});
			document.dispatchEvent(new Event("visibilitychange"))`, yes))
	}
	hide(true)
	w.untilText("#connection", "paused")
	before := s.asked.Load()
	// Longer than between two looks; the page's own clock says when that is over.
	eval[int](w, "window.later = 0; setTimeout(() => window.later = 1, 5000); 0")
	w.until("window.later === 1")
	require.Equal(t, before, s.asked.Load())
	hide(false)
	w.untilText("#connection", "live")
	require.Greater(t, s.asked.Load(), before)
}

func TestPage_problem(t *testing.T) {
	db := sqlite(t)
	_, err := db.Exec(`CREATE TABLE locks (component_name TEXT, component_id TEXT, job_name TEXT,
		job_id TEXT, enabled BOOLEAN, status TEXT, lock_time TEXT)`) // without a key
	require.NoError(t, err)
	w := open(t, serve(t, lock.New(db), lockhttp.Options{Authorize: anything}).url).withAxe()
	w.until(`!document.querySelector("#problem").hidden`)
	require.Contains(t, w.text("#problem"), "key")
	w.check("something is wrong with the table")
}
