package browser

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

// Trouble comes first, and each lock has one line, at the width of half a screen.
func TestPage_wide(t *testing.T) {
	for name, scheme := range schemes {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 500)
			require.NoError(t, f.Disable("shop", "backup")) // held, disabled
			w := f.open(scheme, wide)
			w.untilText("#locks tbody", "backup")
			w.picture("wide-" + name)
			require.Regexp(t, `^expired, late, future, disabled \d+ s, disabledheld, held$`,
				eval[string](w, `[...document.querySelectorAll("#locks tbody tr")].slice(0, 6).map(
					(tr) => tr.firstChild.textContent).join(", ")`))
			require.Equal(t, "shop · shop-7d4b9c5f6-x2kqp · orders at pg-1.internal", w.text("#place"))
			require.LessOrEqual(t, eval[int](w, "document.documentElement.scrollWidth"), 1000)
			require.Empty(t, eval[[]string](w, `[...document.querySelectorAll("#locks tbody tr")]
				.filter((tr) => tr.offsetHeight > 40).map((tr) => tr.innerText)`))
			require.Empty(t, eval[[]string](w, `[...document.querySelectorAll("#locks tbody td")]
				.filter((td) => !td.matches(".component, .holder") && td.scrollWidth > td.clientWidth)
				.map((td) => td.innerText)`), "nothing is cut off but names, of which the details have all")
			background := eval[string](w, "getComputedStyle(document.body).backgroundColor")
			require.Equal(t, name == "dark", background == "rgb(18, 21, 24)")
		})
	}
}

func TestPage_narrow(t *testing.T) {
	w := newFleet(t, 500).open(narrow)
	w.untilText("#locks tbody", "backup")
	w.picture("narrow")
	require.Equal(t, 400, eval[int](w, "innerWidth"))
	require.LessOrEqual(t, eval[int](w, "document.documentElement.scrollWidth"), 400,
		"nothing to scroll sideways")
	small := eval[[]string](w, `[...document.querySelectorAll("#locks .actions button")]
		.filter((b) => b.checkVisibility()).map((b) => [b, b.getBoundingClientRect()])
		.filter(([, r]) => r.height < 24 || r.right > 400).map(([b]) => b.ariaLabel)`)
	require.Empty(t, small, "buttons are large enough for a finger, and on the screen")
	require.Empty(t, eval[[]string](w, `[...document.querySelectorAll("#locks tbody :is(th, td)")]
		.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.innerText)`), "nothing is cut off")
}

func TestPage_no_motion(t *testing.T) {
	f := newFleet(t, 3)
	w := f.open(media("prefers-reduced-motion", "reduce"))
	w.untilText("#locks tbody", "backup")
	f.clock.Advance(ttls["backup"])
	f.hold("shop", "backup", "shop-3", "another")
	w.until(`document.querySelector("#locks .changed")`)
	require.Equal(t, 0, eval[int](w, "document.getAnimations().length"))
}

// A node is an element as a screen reader gets it.
type node struct{ role, name string }

func tree(w tab) []node {
	w.t.Helper()
	answer, err := chromedp.Call(w.ctx, accessibility.GetFullAXTree,
		accessibility.GetFullAXTreeParams{})
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

func TestPage_screen_reader(t *testing.T) {
	for name, width := range widths {
		t.Run(name, func(t *testing.T) {
			w := newFleet(t, 9).open(width)
			w.untilText("#locks tbody", "backup")
			names := map[string][]string{}
			for _, n := range tree(w) {
				names[n.role] = append(names[n.role], n.name)
				switch n.role {
				case "button", "searchbox", "progressbar", "table", "columnheader", "rowheader", "dialog",
					"link", "heading":
					require.NotEmpty(t, strings.TrimSpace(n.name), "a %s without a name", n.role)
				}
			}
			require.Equal(t, []string{"Locks, trouble first"}, names["table"])
			headers := []string{"State", "Component", "Job", "Holder", "Running", "Renewed"}
			if name == "wide" {
				headers = append(headers, "Change")
			}
			require.Len(t, names["columnheader"], len(headers))
			for i, header := range headers {
				require.Contains(t, names["columnheader"][i], header)
			}
			require.Equal(t, []string{"report", "invoices", "future", "digest", "outbox", "reindex",
				"backup", "migrate", "sync-catalogue-with-warehouse-north-east"}, names["rowheader"])
			require.Zero(t, eval[int](w, `document.querySelectorAll(
				"#locks :is(thead, tbody, tr, th, td):not([role])").length`),
				"cards are no table to every browser, unless it is told")
			for _, button := range []string{"Component", "Trouble 4", "Disable… shop / backup",
				"Enable mail / digest", "Release… the lock of shop / backup"} {
				require.Contains(t, names["button"], button)
			}
			require.NotContains(t, names["button"], "Release… the lock of mail / outbox", "it is free")
			require.Equal(t, []string{"Search"}, names["searchbox"])
			require.Contains(t, names["progressbar"], "Age of shop / backup against its TTL")
			require.Empty(t, eval[[]string](w, `[...document.querySelectorAll("[role=progressbar]")]
				.filter((e) => e.checkVisibility() && e.ariaValueText !== e.previousSibling.textContent)
				.map((e) => e.ariaLabel)`))
			require.Equal(t, "polite", eval[string](w, `document.querySelector("#live").ariaLive`))
		})
	}
}

func TestPage_names(t *testing.T) {
	l, _ := memory()
	long := "begins" + strings.Repeat("x", 99_990) + "ends"
	for _, name := range []string{
		`<script>alert(1)</script>`, `<img src=x onerror=alert(2)>`, `"><svg onload=alert(3)>`,
		"invoice\u202egnp.exe", "zero\u200bwidth\nline", long,
	} {
		require.NoError(t, l.Lock("shop", name, name, name, 0))
	}
	require.NoError(t, l.Lock("", "", "", "run", 0))
	w := open(t, serve(t, l, lockhttp.Options{Authorize: anything}).url, wide)
	w.untilText("#locks tbody", "<script>alert(1)</script>")
	text := w.text("#locks tbody")
	for _, want := range []string{`<img src=x onerror=alert(2)>`, `"><svg onload=alert(3)>`,
		`invoice\u{202e}gnp.exe`, `zero\u{200b}width\u{a}line`, "(empty)", "xxx…xxx"} {
		require.Contains(t, text, want)
	}
	require.Less(t, len(text), 5000, "a long one is shortened")
	require.Zero(t, eval[int](w, `document.querySelectorAll("tbody :is(script, img, svg)").length`))
	require.Empty(t, eval[[]string](w, `[...document.querySelectorAll("#locks tbody tr")]
		.filter((tr) => tr.offsetHeight > 40).map((tr) => tr.innerText)`), "one line each")

	w.click(`#locks tr:has(button[aria-label^="Disable… shop / begins"]) th button`)
	w.until(`document.querySelector("#details").open`)
	for i, whole := range []string{"shop", long, long, long} { // component, job, holder, run
		require.Equal(t, whole, eval[string](w, fmt.Sprintf(
			`document.querySelectorAll("#details dd")[%d].textContent`, i+1)))
	}
	w.press(escKey)
	w.until("!document.querySelector('#details').open")

	// It is data on its way back, too.
	w.click(`#locks button[aria-label^="Disable… shop / begins"]`)
	w.click("#confirm-do")
	w.untilText("#notice", "is disabled.")
	var disabled *lock.ErrDisabled
	require.ErrorAs(t, l.Lock("shop", "another", long, "run", 0), &disabled)
}

func TestPage_details(t *testing.T) {
	f := newFleet(t, 9)
	f.events.Observe(t.Context(), lock.Event{Kind: lock.Failed, Operation: "Acquire",
		ComponentName: "shop", JobName: "backup", Err: fmt.Errorf("connection refused")})
	w := f.open(wide)
	w.click(`#locks tr:has(button[aria-label="Disable… shop / backup"]) th button`)
	w.untilText("#details", "shop / backup")
	for _, want := range []string{"State\nfailing, held", "Component\nshop", "Job\nbackup",
		"Holder\nshop-7f9c/4711/QX7RS2LB", "Run\n20", "Started\n", ", 40 min ago", "Renewed\n",
		"TTL\n1 h", "Failed\n", ": connection refused"} {
		require.Contains(t, w.text("#details"), want)
	}
	w.picture("details")
	w.press(escKey)
	w.click(`#locks tr:has(button[aria-label="Disable… mail / outbox"]) th button`)
	w.untilText("#details", "mail / outbox")
	for _, want := range []string{"Last holder\nmail-1", "Last run\n20", "Lock time\n"} {
		require.Contains(t, w.text("#details"), want)
	}
}

func TestPage_thousands(t *testing.T) {
	w := newFleet(t, 5000).open(wide)
	w.untilText("#shown", "500 of 5,000 locks are shown.")
	shown := `[...document.querySelectorAll("#locks tbody th")].map((e) => e.innerText)`
	w.click("#further")
	w.untilText("#shown", "1,000 of 5,000 locks are shown.")
	require.Equal(t, 1000, eval[int](w, shown+".length"))

	w.click("#counters .trouble")
	w.until(shown + `.join(" ") === "report invoices future digest"`)
	pressed := `document.querySelector("#counters .trouble").ariaPressed`
	require.Equal(t, "true", eval[string](w, pressed))
	w.click("#counters .late")
	w.until(shown + `.join(" ") === "invoices"`)
	w.untilText("#shown", "1 of 5,000 locks fit.")
	w.click("#counters .late") // a second time
	w.untilText("#shown", "500 of 5,000 locks are shown.")

	w.click("#search")
	for _, key := range "SHOP back" {
		w.press(string(key))
	}
	w.until(shown + `.join(" ") === "backup"`)
	w.press("x")
	w.until(shown + ".length === 0")
	require.Equal(t, "No lock fits.", w.text("#none"))
	eval[string](w, `document.querySelector("#search").value = ""`)

	w.click(`#locks [data-sort="running"] button`)
	w.until(shown + `[0] === "sync-catalogue-with-warehouse-north-east"`)
	order := `document.querySelector('[data-sort="running"]').ariaSort`
	require.Equal(t, "descending", eval[string](w, order), "the longest first")
	w.click(`#locks [data-sort="job"] button`)
	w.until(shown + `[0] === "backup"`)
	w.click(`#locks [data-sort="job"] button`)
	w.until(shown + `[0] === "sync-catalogue-with-warehouse-north-east"`)
	require.Equal(t, 1, eval[int](w, `document.querySelectorAll("#locks [aria-sort]").length`))
}

// The page says what is not read.
func TestPage_more_than_is_read(t *testing.T) {
	l, _ := memory()
	for i := range 20_001 {
		require.NoError(t, l.Lock("shop", "i", fmt.Sprintf("%05d", i), "r", 0))
	}
	w := open(t, serve(t, l, lockhttp.Options{}).url, wide).withAxe()
	w.untilText("#more", "There are more locks: only the first 20,000")
	w.check("there are more locks")
}
