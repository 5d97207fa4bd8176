package browser

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

func TestATakeoverShowsLive(t *testing.T) {
	l, clock := locktest.New()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	w := open(t, serve(t, l, lockhttp.Options{MaxDuration: anHour}).url)
	w.untilText("#locks tbody", "instance-1")
	w.untilText("#connection", "live")
	require.Equal(t, "held", w.text("#locks tbody .state"))
	require.Zero(t, eval[int](w, "document.querySelectorAll('#locks tbody button:not([hidden])').length"), "nobody may change it")

	clock.Advance(45 * time.Minute)
	w.untilText("#locks tbody .age", "45 min of 1 h")
	require.Equal(t, "75", eval[string](w, "document.querySelector('[role=progressbar]').ariaValueNow"))

	clock.Advance(16 * time.Minute)
	w.untilText("#locks tbody .state", "expired")
	w.untilText("#locks tbody .age", "1 h 1 min, over 1 h")
	w.untilText("#live", "shop / backup has expired")

	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
	w.untilText("#locks tbody .holder", "instance-2")
	require.Equal(t, "held", w.text("#locks tbody .state"))
	require.Regexp(t, `^[\d:]+\nshop / backup: instance-1, run run-1 → instance-2, run run-2
Changed hands between two looks, at [\d:]+ and [\d:]+\. Whether it was released or had expired is not known\.$`, w.text("#handovers li"))
	w.untilText("#live", "shop / backup is now held by instance-2, run run-2")
}

func TestATakeoverByTheProcessItselfIsKnownForOne(t *testing.T) {
	var events lockhttp.Events
	l, err := lock.NewWith(sqlite(t), lock.Options{Observer: events.Observe})
	require.NoError(t, err)
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Microsecond))
	w := open(t, serve(t, l, lockhttp.Options{Events: &events}).url)
	w.untilText("#locks tbody .holder", "instance-1")
	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Microsecond))
	w.untilText("#handovers", "Taken over by this process: the lock had expired.")
	w.untilText("#locks tbody .holder", "instance-2")
	require.Equal(t, 1, eval[int](w, "document.querySelectorAll('#handovers li').length"))
}

func TestADatabaseThatIsAwayIsShownWithWhatWasKnown(t *testing.T) {
	db := sqlite(t)
	l := lock.New(db)
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	w := open(t, serve(t, l, lockhttp.Options{}).url)
	w.untilText("#locks tbody", "instance-1")

	_, err := db.Exec("ALTER TABLE locks RENAME TO elsewhere")
	require.NoError(t, err)
	w.untilText("#banner", "The table can’t be read. What you see is as of ")
	require.Contains(t, w.text("#banner"), "no such table: locks")
	require.Equal(t, "database not readable", w.text("#connection"))
	require.Contains(t, w.text("#locks tbody"), "instance-1")
	w.picture("error")

	_, err = db.Exec("ALTER TABLE elsewhere RENAME TO locks")
	require.NoError(t, err)
	w.untilText("#connection", "live")
	w.until("document.querySelector('#banner').hidden")
}

func TestALostConnectionIsSaidAndComesBack(t *testing.T) {
	l, _ := locktest.New()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	s := serve(t, l, lockhttp.Options{})
	w := open(t, s.url)
	w.untilText("#connection", "live")
	s.away.Store(true)
	w.untilText("#banner", "Connection lost since ")
	require.Contains(t, w.text("#locks tbody"), "instance-1")
	w.picture("lost")
	require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
	s.away.Store(false)
	w.untilText("#locks tbody .state", "free")
	w.untilText("#connection", "live")
	w.untilText("#live", "live again")
}

func TestAHiddenTabAsksNothing(t *testing.T) {
	l, _ := locktest.New()
	s := serve(t, l, lockhttp.Options{})
	w := open(t, s.url)
	w.untilText("#connection", "live")
	hide := func(yes bool) {
		eval[bool](w, fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %t, configurable: true});
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
