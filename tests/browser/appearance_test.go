package browser

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// gallery has a lock in each state that there is, and one that has changed hands.
func gallery(t *testing.T) (*lock.Lock, *locktest.Clock, lockhttp.Options) {
	l, clock := locktest.New()
	longest := map[string]time.Duration{
		"backup": time.Hour, "invoices": 10 * time.Minute, "outbox": 30 * time.Second, "report": 15 * time.Minute,
	}
	take := func(component, job, instance, run string) {
		require.NoError(t, l.Lock(component, instance, job, run, longest[job]))
	}
	clock.Advance(-27 * time.Hour) // so that it ends about now
	take("search", "reindex", "search-7d4b9c5f6-x2kqp/1/M7ZB4K2T", "01K9Z4T7")
	clock.Advance(26 * time.Hour)
	take("shop", "migrate", "shop-2", "schema-42")
	require.NoError(t, l.Unlock("shop", "shop-2", "migrate", "schema-42"))
	take("shop", "report", "shop-1", "2026-11-25T06:00:00Z")
	clock.Advance(16 * time.Minute)
	take("shop", "backup", "shop-7f9c/4711/QX7RS2LB", "2026-11-25T06:15:00Z")
	clock.Advance(25 * time.Minute)
	take("shop", "invoices", "shop-2", "run-118")
	clock.Advance(8*time.Minute + 40*time.Second)
	take("mail", "outbox", "mail-1", "UGZ5N3PQ")
	clock.Advance(9 * time.Second)
	require.NoError(t, l.Disable("shop", "cleanup"))
	require.NoError(t, l.Disable("mail", "digest"))
	take("mail", "bounces", "mail-2", "88")
	return l, clock, lockhttp.Options{
		Authorize:   anything,
		MaxDuration: func(_, job string) time.Duration { return longest[job] },
	}
}

// openGallery opens the page of it when something has changed hands on it.
func openGallery(t *testing.T, before ...chromedp.Action[chromedp.Void]) tab {
	l, _, o := gallery(t)
	w := open(t, serve(t, l, o).url, before...)
	w.untilText("#locks tbody", "reindex")
	require.NoError(t, l.Unlock("mail", "mail-2", "bounces", "88"))
	require.NoError(t, l.Lock("mail", "mail-3", "bounces", "89", time.Minute))
	w.untilText("#handovers", "mail-3")
	return w
}

// tooFaint lists the texts that don't stand out from their ground by the 4.5 to 1 of WCAG's level AA.
const tooFaint = `(() => {
	const pen = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
	const paint = (colours) => { // one over the other
		pen.clearRect(0, 0, 1, 1);
		for (const c of colours) { pen.fillStyle = c; pen.fillRect(0, 0, 1, 1); }
		return [...pen.getImageData(0, 0, 1, 1).data];
	};
	const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const found = [];
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (texts.nextNode()) {
		const e = texts.currentNode.parentElement;
		if (!texts.currentNode.data.trim() || !e.checkVisibility() || e.closest(".unseen, script, style")) continue;
		const grounds = [];
		for (let p = e; p; p = p.parentElement) grounds.unshift(getComputedStyle(p).backgroundColor);
		const a = luminance(paint(["white", ...grounds])), b = luminance(paint(["white", ...grounds, getComputedStyle(e).color]));
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < 4.5) found.push(texts.currentNode.data.trim() + " " + ratio.toFixed(2));
	}
	return found;
})()`

func TestTheTextStandsOutFromItsGround(t *testing.T) {
	for name, scheme := range map[string]chromedp.Action[chromedp.Void]{"light": light, "dark": dark} {
		t.Run(name, func(t *testing.T) {
			w := openGallery(t, scheme)
			// What has changed is lit up for a while.
			w.until("document.getAnimations().length === 0")
			w.picture(name)
			require.Empty(t, eval[[]string](w, tooFaint))
			w.click(`#locks button[aria-label="Release… the lock of shop / report"]`)
			require.Empty(t, eval[[]string](w, tooFaint), "nor in the dialog")
			w.press(escKey)
			dark := eval[string](w, "getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 24)"
			require.Equal(t, name == "dark", dark)
		})
	}
}

func TestANarrowScreenHasRoomForAll(t *testing.T) {
	w := openGallery(t, narrow)
	w.picture("narrow")
	require.Equal(t, 400, eval[int](w, "innerWidth"))
	require.LessOrEqual(t, eval[int](w, "document.documentElement.scrollWidth"), 400, "nothing to scroll sideways")
	small := eval[[]string](w, `[...document.querySelectorAll("#locks tbody button")].filter((b) => b.checkVisibility())
		.filter((b) => b.getBoundingClientRect().height < 24 || b.getBoundingClientRect().right > 400).map((b) => b.ariaLabel)`)
	require.Empty(t, small, "buttons are large enough for a finger, and on the screen")
}

func TestWhoWantsNoMotionGetsNone(t *testing.T) {
	w := openGallery(t, media("prefers-reduced-motion", "reduce"))
	require.Equal(t, 0, eval[int](w, "document.getAnimations().length"))
	require.Equal(t, "none", eval[string](w, `getComputedStyle(document.querySelector("#locks .changed")).animationName`))
}

// A node is what a screen reader is told of an element.
type node struct{ role, name string }

func tree(w tab) []node {
	w.t.Helper()
	answer, err := chromedp.Call(w.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	require.NoError(w.t, err)
	text := func(v *accessibility.Value) string {
		var s any
		if v != nil && json.Unmarshal(v.Value, &s) == nil && s != nil {
			return fmt.Sprint(s)
		}
		return ""
	}
	var all []node
	for _, n := range answer.Nodes {
		if n.Ignored {
			continue
		}
		all = append(all, node{text(n.Role), text(n.Name)})
	}
	return all
}

func TestAScreenReaderIsToldAll(t *testing.T) {
	for name, width := range map[string]chromedp.Action[chromedp.Void]{"wide": chromedp.EmulateViewport(1280, 900), "narrow": narrow} {
		t.Run(name, func(t *testing.T) {
			w := openGallery(t, width)
			names := map[string][]string{}
			for _, n := range tree(w) {
				names[n.role] = append(names[n.role], n.name)
				switch n.role {
				case "button", "searchbox", "progressbar", "table", "columnheader", "rowheader", "dialog", "link", "heading":
					require.NotEmpty(t, strings.TrimSpace(n.name), "a %s without a name", n.role)
				}
			}
			require.Equal(t, []string{"Locks, with who holds them"}, names["table"])
			headers := []string{"Component", "Job", "State", "Holder and run", "Since, token", "Age"}
			if name == "wide" {
				headers = append(headers, "Change")
			}
			for i, header := range headers {
				require.Contains(t, names["columnheader"][i], header)
			}
			require.Len(t, names["columnheader"], len(headers))
			require.ElementsMatch(t, []string{"backup", "bounces", "cleanup", "digest", "invoices", "migrate", "outbox", "reindex", "report"},
				names["rowheader"])
			require.Len(t, names["row"], 10)
			require.Zero(t, eval[int](w, `document.querySelectorAll("#locks :is(thead, tbody, tr, th, td):not([role])").length`),
				"cards are no table to every browser, unless it is told")
			require.GreaterOrEqual(t, len(names["cell"])+len(names["gridcell"]), 9*5)
			for _, button := range []string{"Component", "Disable shop / backup", "Enable shop / cleanup", "Release… the lock of shop / backup"} {
				require.Contains(t, names["button"], button)
			}
			require.NotContains(t, names["button"], "Release… the lock of shop / cleanup", "nobody holds it")
			require.Contains(t, names["searchbox"], "Filter")
			require.ElementsMatch(t, []string{
				"Age of mail / outbox against its expiry", "Age of shop / backup against its expiry",
				"Age of shop / invoices against its expiry", "Age of shop / report against its expiry",
			}, names["progressbar"])
			require.Empty(t, eval[[]string](w, `[...document.querySelectorAll("[role=progressbar]")]
				.filter((e) => e.checkVisibility() && e.ariaValueText !== e.previousSibling.textContent).map((e) => e.ariaLabel)`))
			require.Len(t, names["status"], 1)
			require.Equal(t, "polite", eval[string](w, `document.querySelector("#live").ariaLive`))
		})
	}
}

func TestNamesAreShownAsTheText(t *testing.T) {
	l, _ := locktest.New()
	long := "begins" + strings.Repeat("x", 99_990) + "ends"
	for _, name := range []string{
		`<script>alert(1)</script>`, `<img src=x onerror=alert(2)>`, `"><svg onload=alert(3)>`,
		"invoice\u202egnp.exe", "zero\u200bwidth\nline", "", long,
	} {
		require.NoError(t, l.Lock("shop", name, name, name, 0))
	}
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything}).url)
	w.untilText("#locks tbody", "<script>alert(1)</script>")
	text := w.text("#locks tbody")
	for _, want := range []string{`<img src=x onerror=alert(2)>`, `"><svg onload=alert(3)>`,
		`invoice\u{202e}gnp.exe`, `zero\u{200b}width\u{a}line`, "(empty)", "xxx…xxx", "all 100,000 characters"} {
		require.Contains(t, text, want)
	}
	require.Less(t, len(text), 5000, "a long one is shortened")
	require.Zero(t, eval[int](w, `document.querySelectorAll("tbody script, tbody img, tbody svg").length`))
	w.picture("names")

	w.click("#locks th button.all")
	require.Equal(t, "The job’s name, 100,000 characters", w.text("#full-title"))
	require.Equal(t, long, eval[string](w, `document.querySelector("#full-text").textContent`))
	w.press(escKey)
	w.until("!document.querySelector('#full').open")

	// It also is data on its way back.
	w.click(`#locks button[aria-label^="Disable shop / begins"]`)
	w.untilText("#notice", "is disabled.")
	var disabled *lock.ErrDisabled
	require.ErrorAs(t, l.Lock("shop", "another", long, "run", 0), &disabled)
}

func TestHundredsOfLocksAreFilteredAndSorted(t *testing.T) {
	l, clock := locktest.New()
	for i := range 600 {
		require.NoError(t, l.Lock(fmt.Sprintf("component-%d", i%7), fmt.Sprintf("instance-%d", i%13), fmt.Sprintf("job-%d", i), "run", 0))
		clock.Advance(time.Second)
	}
	require.NoError(t, l.Disable("component-4", "job-11"))
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything, MaxDuration: anHour}).url)
	w.untilText("#summary", "600 locks")
	shown := func() []string {
		return eval[[]string](w, `[...document.querySelectorAll("#locks tbody tr:not([hidden]) th")].map((e) => e.innerText).slice(0, 3)`)
	}
	require.Equal(t, []string{"job-0", "job-7", "job-14"}, shown(), "by the component, and numbers as numbers")
	w.picture("many")

	w.click(`#locks [data-sort="age"] button`)
	require.Equal(t, []string{"job-0", "job-1", "job-2"}, shown(), "the oldest first")
	require.Equal(t, "descending", eval[string](w, `document.querySelector('[data-sort="age"]').ariaSort`))
	w.click(`#locks [data-sort="age"] button`)
	require.Equal(t, []string{"job-599", "job-598", "job-597"}, shown())
	w.click(`#locks [data-sort="job"] button`)
	require.Equal(t, []string{"job-0", "job-1", "job-2"}, shown())
	require.Equal(t, 1, eval[int](w, `document.querySelectorAll("#locks [aria-sort]").length`))

	w.click("#filter")
	for _, key := range "4 DISA" {
		w.press(string(key))
	}
	require.Equal(t, []string{"job-11"}, shown())
	w.untilText("#summary", "1 shown")
	w.press("x")
	require.Empty(t, shown())
	require.Equal(t, "No lock fits the filter.", w.text("#none"))
}
