
// ---- the table, and what is above and below it ----

const usual = 500, most = 5000; // locks shown at once
const wanted = {state: "", sort: "", down: false, limit: usual};
const rows = new Map(); // by component and job
let state = null;       // the last State that came
let readAt = 0;         // when the table was read, in performance.now()'s milliseconds

function query() {
	return new URLSearchParams({format: "json", search: $("search").value, state: wanted.state,
		sort: (wanted.down ? "-" : "") + wanted.sort, limit: wanted.limit});
}

// show puts the rows in the order in which they came. Only what stands in the wrong place is
// moved, and the focus stays where it is.
function show() {
	const body = $("locks").tBodies[0], focused = document.activeElement, now = new Set();
	let at = body.firstChild;
	for (const l of state.locks) {
		const key = keyOf(l);
		now.add(key);
		if (!rows.has(key)) rows.set(key, new Row(l));
		const row = rows.get(key);
		row.show(l);
		if (row.tr === at) at = at.nextSibling;
		else body.insertBefore(row.tr, at);
	}
	const within = body.contains(focused);
	for (const [key, row] of rows) {
		if (now.has(key)) continue;
		row.tr.remove();
		rows.delete(key);
	}
	if (within && focused !== document.activeElement) {
		(body.contains(focused) ? focused : $("search")).focus({preventScroll: true});
	}
	document.querySelector("#locks th.actions").hidden = !state.may_change;
	showPlace();
	showCounters();
	showRest();
	showChanges();
}

function showPlace() {
	const places = [state.service, state.host, state.database].filter(Boolean);
	setText($("place"), places.map(visible).join(" · "));
	document.title = (state.counts.trouble ? "(" + state.counts.trouble + ") " : "") + "Locks" +
		(state.service ? " · " + visible(state.service) : "");
}

const kinds = {"": "All", trouble: "Trouble", expired: "Expired", late: "Late", future: "Future",
	failing: "Failing", disabled: "Disabled", held: "Held", free: "Free"};
const counters = new Map(Object.entries(kinds).map(([kind, word]) => {
	const n = el("b");
	const button = el("button", {type: "button", className: "counter " + kind}, word + " ", n);
	button.addEventListener("click", () => {
		wanted.state = wanted.state === kind ? "" : kind;
		wanted.limit = usual;
		showCounters();
		look();
	});
	$("counters").append(button);
	return [kind, {button, n}];
}));

function showCounters() {
	for (const [kind, {button, n}] of counters) {
		const count = state ? state.counts[kind || "all"] || 0 : 0;
		setText(n, number.format(count));
		setAttr(button, "aria-pressed", String(wanted.state === kind));
		button.classList.toggle("some", count > 0);
		const usual = ["", "trouble", "held", "free"].includes(kind);
		button.hidden = !count && wanted.state !== kind && !usual;
	}
}

function showRest() {
	const n = state.locks.length;
	const why = !state.counts.all
		? "There is no lock yet. A job gets its row when it is first locked."
		: wanted.state === "trouble" && !$("search").value ? "No trouble." : "No lock fits.";
	$("none").hidden = n > 0;
	setText($("none"), why);
	const of = (all) => number.format(n) + " of " + number.format(all) + " locks";
	setText($("shown"), n < state.matching ? of(state.matching) + " are shown."
		: n < state.counts.all ? of(state.counts.all) + " fit." : "");
	$("further").hidden = n >= state.matching || wanted.limit >= most;
	setText($("further"), "Show " + number.format(Math.min(usual, state.matching - n)) + " more");
	$("problem").hidden = !state.problem;
	const findings = (state.problem || "").split("\n").map(visible);
	setText($("problem"), "Something is wrong with the table. " + findings.join(" "));
	$("more").hidden = !state.more;
	setText($("more"), "There are more locks: only the first " + number.format(state.counts.all) +
		", in the order of their names, were read.");
}

// happened is what a change was, in words.
function happened(c) {
	const by = c.by ? "by " + short(c.by) : "";
	switch (c.what) {
	case "taken_over": return "Taken over by this process: the lock had expired.";
	case "changed_hands": return "Changed hands between two looks. It was released or had expired.";
	default: return (c.what[0].toUpperCase() + c.what.slice(1) + " " + by).trim() + ".";
	}
}
const runSpan = (r) => [id(r.component_id), ", run ", id(r.job_id)];

function showChanges() {
	const text = JSON.stringify(state.changes), e = $("changes");
	$("no-changes").hidden = state.changes.length > 0;
	if (e.shown === text) return;
	e.shown = text;
	e.replaceChildren(...state.changes.map((c) => el("li", {},
		el("span", {}, ...(c.after ? [time(c.after), " to "] : []), time(c.at)),
		el("span", {}, id(c.component), " / ", id(c.job),
			...(c.from ? [": ", ...runSpan(c.from)] : []), ...(c.to ? [" → ", ...runSpan(c.to)] : [])),
		el("span", {className: "how"}, happened(c)))));
}

function showSort() {
	document.querySelectorAll("#locks [data-sort]").forEach((th) => {
		if (th.dataset.sort !== wanted.sort) th.removeAttribute("aria-sort");
		else th.setAttribute("aria-sort", wanted.down ? "descending" : "ascending");
	});
}
document.querySelectorAll("#locks [data-sort]").forEach((th) => {
	const key = th.dataset.sort, largest = ["running", "age"].includes(key); // come first
	th.firstElementChild.addEventListener("click", () => {
		wanted.down = wanted.sort === key ? !wanted.down : largest;
		wanted.sort = key;
		showSort();
		look();
	});
});
let typing = 0;
$("search").addEventListener("input", () => {
	wanted.limit = usual;
	clearTimeout(typing);
	typing = setTimeout(look, 150);
});
$("further").addEventListener("click", () => {
	wanted.limit = Math.min(most, wanted.limit + usual);
	look();
});
$("zone").textContent = "Times are those of your time zone, " +
	Intl.DateTimeFormat().resolvedOptions().timeZone + ".";
showSort();
