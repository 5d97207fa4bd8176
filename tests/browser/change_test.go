package browser

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

const (
	disableButton = `#locks button[aria-label="Disable… shop / backup"]`
	enableButton  = `#locks button[aria-label="Enable shop / backup"]`
	releaseButton = `#locks button[aria-label="Release… the lock of shop / backup"]`
)

// held is a lock that instance-1 holds.
func held(t *testing.T) (*lock.Lock, *locktest.Clock) {
	l, clock := memory()
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	return l, clock
}

func status(t *testing.T, l *lock.Lock) lock.Status {
	s, err := l.Status(context.Background(), "shop", "backup")
	require.NoError(t, err)
	return s
}

func TestPage_disable(t *testing.T) {
	l, _ := held(t)
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything,
		User: func(*http.Request) string { return "Ann" }}).url)
	w.untilText("#locks tbody", "Disable")
	w.click(disableButton)
	w.untilText("#confirm", "Disable shop / backup?")
	require.Regexp(t, `^Holder\s+instance-1\s+Run\s+run-1\s+Renewed\s+\d`, w.text("#confirm-what"))
	require.Contains(t, w.text("#confirm"), "A run that holds it now goes on.")
	require.Equal(t, "Cancel", w.focus(), "the safe answer comes first")
	require.True(t, status(t, l).Enabled, "so far it has only asked")
	w.click("#confirm-do")
	w.untilText("#notice", "shop / backup is disabled.")
	w.untilText("#locks tbody .state", "disabled")
	w.untilText("#changes", "Disabled by Ann.")
	w.click(releaseButton)
	w.untilText("#confirm-what", "Last change\nDisabled by Ann.")
	w.press(escKey)
	require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
	var disabled *lock.ErrDisabled
	require.ErrorAs(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Hour), &disabled)

	w.click(enableButton)
	w.untilText("#notice", "shop / backup is enabled.")
	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
}

func TestPage_refused_by_the_service(t *testing.T) {
	l, _ := held(t)
	onlyLook := func(_ *http.Request, a lockhttp.Action) error {
		if a.Kind != lockhttp.Look {
			return errors.New("ask Ann")
		}
		return nil
	}
	w := open(t, serve(t, l, lockhttp.Options{Authorize: onlyLook}).url)
	w.untilText("#locks tbody", "Disable")
	w.click(disableButton)
	w.click("#confirm-do")
	w.untilText("#confirm-refusal", "Could not disable shop / backup: ask Ann")
	require.True(t, status(t, l).Enabled)
}

func TestPage_forbidden(t *testing.T) {
	l, _ := held(t)
	over := func(r *http.Request, a lockhttp.Action) error {
		if r.URL.Query().Get("format") == "json" {
			return errors.New("the session is over")
		}
		return nil
	}
	w := open(t, serve(t, l, lockhttp.Options{Authorize: over}).url)
	w.untilText("#banner", "You may not look here, or not any more: the session is over.")
}

func TestPage_release(t *testing.T) {
	l, _ := held(t)
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything}).url)
	w.untilText("#locks tbody", "Release…")
	w.click(releaseButton)
	w.untilText("#confirm", "Release the lock of shop / backup?")
	require.Regexp(t, `^Holder\s+instance-1\s+Run\s+run-1\s+Renewed\s+\d`, w.text("#confirm-what"))
	w.picture("confirm")
	require.True(t, status(t, l).Locked, "so far it has only asked")
	w.click("#confirm-do")
	w.untilText("#notice", "The lock of shop / backup is released.")
	require.False(t, status(t, l).Locked)
	w.until("!document.querySelector('#confirm').open")
	w.untilText("#locks tbody .state", "free")
}

func TestPage_release_held_by_another(t *testing.T) {
	l, _ := held(t)
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything}).url)
	w.untilText("#locks tbody", "Release…")
	w.click(releaseButton)
	require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
	require.NoError(t, l.Lock("shop", "instance-2", "backup", "run-2", time.Hour))
	w.untilText("#locks tbody .holder", "instance-2")
	require.Contains(t, w.text("#confirm-what"), "instance-1", "it stays what was seen")
	w.click("#confirm-do")
	w.untilText("#confirm-refusal", "Refused: another holds the lock now.")
	require.Regexp(t, `Holder\s+instance-2\s+Run\s+run-2`, w.text("#confirm-refusal"))
	w.until("document.querySelector('#confirm-do').hidden")
	w.picture("refused")
	require.Equal(t, "instance-2", status(t, l).Holder.ComponentID)
	require.True(t, status(t, l).Locked)
}

func TestPage_release_renewed(t *testing.T) {
	l, clock := held(t)
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything}).url)
	w.untilText("#locks tbody", "Release…")
	w.click(releaseButton)
	clock.Advance(2 * time.Hour)
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	w.click("#confirm-do")
	w.untilText("#confirm-refusal", "It is alive.")
	require.True(t, status(t, l).Locked)
	require.Equal(t, "Release all the same", w.text("#confirm-do"))
	w.click("#confirm-do")
	w.untilText("#notice", "is released")
	require.False(t, status(t, l).Locked)
}

func TestPage_keyboard(t *testing.T) {
	l, _ := held(t)
	require.NoError(t, l.Lock("shop", "instance-1", "report", "run-1", time.Hour))
	s := serve(t, l, lockhttp.Options{Authorize: anything})
	w := open(t, s.url)
	w.untilText("#locks tbody", "Release…")
	w.press(tabKey)
	require.Equal(t, "All 2", w.focus())
	for _, want := range []string{"Trouble 0", "Held 2", "Free 0", "search"} {
		w.press(tabKey)
		require.Equal(t, want, w.focus())
	}
	w.press("b", "a", "c", "k")
	w.untilText("#shown", "1 of 2 locks fit.")
	for _, want := range []string{"State", "Component", "Job", "Holder", "Running", "Renewed",
		"backup", "Disable… shop / backup"} {
		w.press(tabKey)
		require.Equal(t, want, w.focus())
	}
	asked := s.asked.Load()
	w.press(enterKey)
	require.Equal(t, "Cancel", w.focus())
	w.press(tabKey, enterKey)
	w.untilText("#notice", "shop / backup is disabled.")
	require.False(t, status(t, l).Enabled)
	w.until(`document.querySelector('#locks tbody .state').innerText.includes("disabled")`)
	for s.asked.Load() < asked+3 {
		w.until("true") // a few refreshes later
		time.Sleep(50 * time.Millisecond)
	}
	require.Equal(t, "Enable shop / backup", w.focus(), "the focus stays over refreshes")

	w.press(tabKey)
	require.Equal(t, "Release… the lock of shop / backup", w.focus())
	w.press(enterKey)
	w.until("document.querySelector('#confirm').open")
	require.Equal(t, "Cancel", w.focus(), "the safe answer comes first")
	w.press(escKey)
	w.until("!document.querySelector('#confirm').open")
	require.Equal(t, "Release… the lock of shop / backup", w.focus())
	require.True(t, status(t, l).Locked)

	w.press(enterKey)
	w.until("document.querySelector('#confirm').open")
	w.press(tabKey)
	require.Equal(t, "Release", w.focus())
	w.press(enterKey)
	w.untilText("#notice", "is released")
	require.False(t, status(t, l).Locked)
	// The other button has gone.
	w.until(`document.activeElement.getAttribute("aria-label") === "Enable shop / backup"`)
}

// A page of another origin, in a real browser, tries what it can.
func TestPage_another_origin(t *testing.T) {
	l, _ := held(t)
	s := serve(t, l, lockhttp.Options{Authorize: anything})
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<title>evil</title><iframe src="%s" name="frame"></iframe>`, s.url)
	}))
	t.Cleanup(evil.Close)
	w := open(t, "about:blank")
	w.do(chromedp.Navigate(strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)))
	const disable = `{"action":"disable","component":"shop","job":"backup"}`
	run := func(js string) string {
		v, err := chromedp.Run(w.ctx, chromedp.Evaluate[string](js, chromedp.EvalAwaitPromise))
		require.NoError(t, err)
		return v
	}
	for _, kind := range []string{"text/plain", "application/json"} {
		for _, mode := range []string{"no-cors", "cors"} {
			run(fmt.Sprintf(`fetch(%q, {method: "POST", mode: %q, body: %q,
				headers: {"Content-Type": %q}}).then((r) => r.type, String)`, s.url, mode, disable, kind))
			require.True(t, status(t, l).Enabled, kind+", "+mode)
		}
	}
	read := run(fmt.Sprintf(`fetch("%s?format=json").then((r) => r.text(), String)`, s.url))
	require.Contains(t, read, "TypeError", "nor may it read")
	wrong := w.wrong.take()
	require.NotEmpty(t, wrong)
	require.Contains(t, wrong[0], "Framing", "nor show the page in a frame of its own")
}

func TestPage_focus_stays_with_its_row(t *testing.T) {
	l, clock := held(t)
	clock.Advance(time.Minute)
	require.NoError(t, l.Lock("shop", "instance-1", "report", "run-1", time.Hour))
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything}).url)
	w.untilText("#locks tbody", "report")
	w.click(`#locks [data-sort="age"] button`)
	jobs := `[...document.querySelectorAll("#locks tbody th")].map((e) => e.innerText).join(" ")`
	w.until(jobs + ` === "backup report"`)
	w.press(tabKey, tabKey, tabKey, tabKey, tabKey)
	require.Equal(t, "Disable… shop / report", w.focus())

	clock.Advance(2 * time.Hour)
	require.NoError(t, l.Lock("shop", "instance-1", "backup", "run-1", time.Hour))
	w.until(jobs + ` === "report backup"`)
	require.Equal(t, "Disable… shop / report", w.focus())
}

func TestPage_focus_without_its_button(t *testing.T) {
	l, _ := held(t)
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything}).url)
	w.untilText("#locks tbody", "Release…")
	w.click(releaseButton)
	require.NoError(t, l.Unlock("shop", "instance-1", "backup", "run-1"))
	w.untilText("#locks tbody .state", "free") // there is nothing to release any more
	w.press(escKey)
	w.until(`document.activeElement.getAttribute("aria-label") === "Disable… shop / backup"`)
}
