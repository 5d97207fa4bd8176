
"use strict";
// Whatever comes from the table is put into the page as text, never as HTML.
const lookEvery = 2000, longestBackoff = 30000, patience = 15000; // in milliseconds
const $ = (id) => document.getElementById(id);
const here = location.origin + location.pathname; // wherever it is mounted

let state = null;       // the last State that came
let readAt = 0;         // when the table was read that it shows, in performance.now()'s milliseconds
let answered = null;    // when it came, as a Date
let lostSince = null;   // when the first of the requests failed that have failed since
let failures = 0;
let timer = 0, request = null;
let sort = {key: "component", down: false};
const rows = new Map(); // by component and job

// ---- words ----

const number = new Intl.NumberFormat("en");
const order = new Intl.Collator("en", {numeric: true});

// visible shows what would otherwise be invisible or turn the text around, as its code.
const visible = (s) => s.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu, (c) => "\\u{" + c.codePointAt(0).toString(16) + "}");

// short is a text of at most 64 characters for it, and says whether it is all of it.
function short(s) {
	if (s.length <= 64) return {text: visible(s), whole: true};
	const head = [...s.slice(0, 100)].slice(0, 40), tail = [...s.slice(-40)].slice(-16);
	return {text: visible(head.join("") + "…" + tail.join("")), whole: false};
}
const named = (s) => s === "" ? "(empty)" : short(s).text;
const titleOf = (l) => named(l.component) + " / " + named(l.job);
const runWords = (h) => named(h.component_id) + ", run " + named(h.job_id);

// duration is in the two largest units that it has; one that is to be exact, and is short, in milliseconds.
function duration(s, exact) {
	if (exact && s < 10) return number.format(Math.round(s * 1000)) + " ms";
	s = Math.max(0, Math.floor(s));
	if (s === 0) return "0 s";
	const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
	const i = units.findIndex(([, size]) => s >= size);
	const first = Math.floor(s / units[i][1]);
	const rest = i < 3 ? Math.floor(s % units[i][1] / units[i + 1][1]) : 0;
	return first + " " + units[i][0] + (rest ? " " + rest + " " + units[i + 1][0] : "");
}
const two = (n) => String(n).padStart(2, "0");
const clock = (d) => two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds());
function day(d) {
	const today = new Date();
	return d.toDateString() === today.toDateString() ? clock(d)
		: d.getFullYear() + "-" + two(d.getMonth() + 1) + "-" + two(d.getDate()) + " " + clock(d);
}

// ---- elements ----

function el(tag, props = {}, ...children) {
	const e = document.createElement(tag);
	for (const [k, v] of Object.entries(props)) k in e ? e[k] = v : e.setAttribute(k, v);
	e.append(...children);
	return e;
}
function setText(e, s) { if (e.textContent !== s) e.textContent = s; }
function setAttr(e, name, v) { if (e.getAttribute(name) !== v) e.setAttribute(name, v); }

function time(iso) {
	const d = new Date(iso);
	return el("time", {dateTime: iso, title: iso}, day(d));
}

// put shows a name or an ID in e, isolated from the direction of what is around it.
function put(e, s, what) {
	if (e.shown === s) return;
	e.shown = s;
	const {text, whole} = short(s);
	const parts = [s === "" ? el("span", {className: "mark"}, "(empty)") : el("bdi", {className: "text"}, text)];
	if (!whole) {
		const more = el("button", {type: "button", className: "all"}, "all " + number.format([...s].length) + " characters");
		more.addEventListener("click", () => showFull(what, s));
		more.setAttribute("aria-label", more.textContent + " of the " + what);
		parts.push(more);
	}
	e.replaceChildren(...parts);
}
function idSpan(s, what) {
	const e = el("span", {className: "id"});
	put(e, s, what);
	return e;
}
function holderList(h) {
	return el("dl", {},
		el("dt", {}, "Holder"), el("dd", {}, idSpan(h.component_id, "holder’s ID")),
		el("dt", {}, "Run"), el("dd", {}, idSpan(h.job_id, "run’s ID")),
		el("dt", {}, "Since"), el("dd", {}, time(h.since), ", " + duration(h.age_seconds) + " ago when looked at"));
}

// ---- the table ----

const live = () => $("connection").dataset.state === "live";

// age is by the database's clock, and what has passed since it was asked.
const age = (h) => h.age_seconds + (performance.now() - readAt) / 1000;

function stateOf(l) {
	const words = [];
	if (l.held) words.push(l.max_duration_seconds && age(l.holder) > l.max_duration_seconds ? "expired" : "held");
	if (!l.enabled) words.push("disabled");
	if (!l.held && l.enabled) words.push("free");
	return words;
}

const keyOf = (l) => JSON.stringify([l.component, l.job]);

class Row {
	constructor(l) {
		const cell = (tag, className, label, ...children) => {
			const c = el(tag, {className}, ...children);
			c.setAttribute("role", tag === "th" ? "rowheader" : "cell");
			c.setAttribute("data-label", label);
			if (tag === "th") c.scope = "row";
			return c;
		};
		this.l = l;
		this.component = el("span");
		this.job = el("span");
		this.badges = el("span");
		this.last = el("span", {className: "mark", hidden: true}, "last ");
		this.id = el("span", {className: "id"});
		this.run = el("span", {className: "id under"});
		this.since = el("time");
		this.token = el("span", {className: "token under"});
		this.age = el("span");
		this.fill = el("i");
		this.bar = el("div", {className: "bar", hidden: true}, this.fill);
		this.bar.setAttribute("role", "progressbar");
		this.bar.setAttribute("aria-valuemin", "0");
		this.bar.setAttribute("aria-valuemax", "100");
		this.toggle = el("button", {type: "button"});
		this.toggle.addEventListener("click", () => toggle(this));
		this.release = el("button", {type: "button", className: "danger", hidden: true}, "Release…");
		this.release.addEventListener("click", () => confirmRelease(this));
		this.actions = cell("td", "actions", "Change", el("div", {}, this.toggle, this.release));
		this.tr = el("tr", {},
			cell("td", "component", "Component", this.component),
			cell("th", "job", "Job", this.job),
			cell("td", "state", "State", this.badges),
			cell("td", "holder", "Holder", el("div", {}, el("div", {}, this.last, this.id), el("div", {}, this.run))),
			cell("td", "since", "Since", el("div", {}, el("div", {}, this.since), el("div", {}, this.token))),
			cell("td", "age", "Age", el("div", {}, this.age, this.bar)),
			this.actions);
		this.tr.setAttribute("role", "row");
		put(this.component, l.component, "component’s name");
		put(this.job, l.job, "job’s name");
		this.title = titleOf(l);
		setAttr(this.bar, "aria-label", "Age of " + this.title + " against its expiry");
		this.release.setAttribute("aria-label", "Release… the lock of " + this.title);
	}

	show(l) {
		const who = l.holder || l.last, before = this.l.holder;
		this.last.hidden = !l.last;
		this.tr.classList.toggle("never", !who);
		this.tr.classList.toggle("unheld", !l.held);
		if (who) {
			put(this.id, who.component_id, "holder’s ID");
			put(this.run, who.job_id, "run’s ID");
			setAttr(this.since, "datetime", who.since);
			setAttr(this.since, "title", who.since);
			setText(this.since, day(new Date(who.since)));
			setText(this.token, who.token);
		} else {
			for (const e of [this.id, this.run]) { e.replaceChildren(); e.shown = undefined; }
			setText(this.since, "");
			setText(this.token, "");
			this.id.append(el("span", {className: "mark"}, "never held"));
		}
		if (l.held && before && !sameRun(before, l.holder)) {
			this.tr.classList.remove("changed");
			void this.tr.offsetWidth; // so that the animation begins anew
			this.tr.classList.add("changed");
		}
		setText(this.toggle, l.enabled ? "Disable" : "Enable");
		setAttr(this.toggle, "aria-label", this.toggle.textContent + " " + this.title);
		this.toggle.hidden = !state.changes;
		const release = state.changes && l.held;
		if (!release && document.activeElement === this.release) this.toggle.focus();
		this.release.hidden = !release;
		this.l = l;
		this.words = [l.component, l.job, who ? who.component_id + " " + who.job_id : "", l.held ? "held" : ""].join(" ").toLowerCase();
		this.tick();
	}

	// tick shows what changes by itself as time passes.
	tick() {
		const l = this.l, words = stateOf(l);
		this.state = words.join(" ");
		if (this.badges.textContent !== words.join("")) {
			this.badges.replaceChildren(...words.map((w) => el("span", {className: "badge " + w}, w)));
		}
		const longest = l.max_duration_seconds;
		this.bar.hidden = !l.held || !longest;
		if (!l.held) return setText(this.age, "");
		const a = age(l.holder);
		if (!longest) return setText(this.age, duration(a));
		const over = a > longest, share = Math.min(1, a / longest);
		const text = duration(a) + (over ? ", over " : " of ") + duration(longest, true);
		setText(this.age, text);
		this.bar.className = "bar" + (over ? " over" : share >= .75 ? " late" : "");
		this.fill.style.width = (100 * share).toFixed(1) + "%";
		setAttr(this.bar, "aria-valuenow", String(Math.round(100 * share)));
		setAttr(this.bar, "aria-valuetext", text);
	}
}

const sameRun = (a, b) => a.component_id === b.component_id && a.job_id === b.job_id;

const by = {
	component: (a, b) => order.compare(a.l.component, b.l.component) || order.compare(a.l.job, b.l.job),
	job: (a, b) => order.compare(a.l.job, b.l.job),
	state: (a, b) => order.compare(a.state, b.state),
	holder: (a, b) => order.compare(who(a).component_id || "", who(b).component_id || ""),
	since: (a, b) => Date.parse(who(a).since || 0) - Date.parse(who(b).since || 0),
	age: (a, b) => (a.l.held ? a.l.holder.age_seconds : -1) - (b.l.held ? b.l.holder.age_seconds : -1),
};
const who = (row) => row.l.holder || row.l.last || {};

function show() {
	const now = new Set();
	for (const l of state.locks) {
		const key = keyOf(l);
		now.add(key);
		if (!rows.has(key)) rows.set(key, new Row(l));
		rows.get(key).show(l);
	}
	for (const [key, row] of rows) {
		if (now.has(key)) continue;
		if (row.tr.contains(document.activeElement)) $("filter").focus();
		row.tr.remove();
		rows.delete(key);
	}
	document.querySelectorAll("#locks .actions").forEach((e) => e.hidden = !state.changes);
	arrange();
	showHandovers();
}

// arrange puts the rows in order, and hides what is filtered out. Only what stands in the wrong place is moved, and the focus
// stays where it is.
function arrange() {
	const body = $("locks").tBodies[0], focused = document.activeElement;
	const sorted = [...rows.values()].sort((a, b) => (sort.down ? -1 : 1) * by[sort.key](a, b) || by.component(a, b));
	let at = body.firstChild;
	for (const row of sorted) {
		if (row.tr === at) at = at.nextSibling;
		else body.insertBefore(row.tr, at);
	}
	if (focused !== document.activeElement && body.contains(focused)) focused.focus({preventScroll: true});
	const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
	let shown = 0;
	for (const row of sorted) {
		const fits = wanted.every((w) => row.words.includes(w) || row.state.includes(w));
		if (row.tr.hidden === fits) row.tr.hidden = !fits;
		if (fits) shown++;
	}
	$("none").hidden = !state || shown > 0;
	setText($("none"), rows.size ? "No lock fits the filter." : "There is no lock yet. A job gets its row when it is first locked.");
	summarise(shown);
}

function summarise(shown) {
	if (!state || !answered) return;
	const count = (word) => [...rows.values()].filter((r) => word === "held" ? r.l.held : r.state.includes(word)).length;
	const parts = ["held", "expired", "disabled"].map((w) => [count(w), w]).filter(([n]) => n).map(([n, w]) => number.format(n) + " " + w);
	const all = number.format(rows.size) + (rows.size === 1 ? " lock" : " locks");
	setText($("summary"), [all, ...parts].join(" · ") + (shown < rows.size ? " · " + number.format(shown) + " shown" : ""));
}

function showHandovers() {
	const text = JSON.stringify(state.handovers), list = $("handovers");
	$("no-handovers").hidden = state.handovers.length > 0;
	if (list.shown === text) return;
	list.shown = text;
	const focused = list.contains(document.activeElement);
	list.replaceChildren(...state.handovers.map((h) => el("li", {},
		time(h.at),
		el("span", {},
			idSpan(h.component, "component’s name"), " / ", idSpan(h.job, "job’s name"), ": ",
			idSpan(h.from.component_id, "holder’s ID"), ", run ", idSpan(h.from.job_id, "run’s ID"), " → ",
			idSpan(h.to.component_id, "holder’s ID"), ", run ", idSpan(h.to.job_id, "run’s ID")),
		h.seen === "event"
			? el("span", {className: "how"}, "Taken over by this process: the lock had expired.")
			: el("span", {className: "how"}, "Changed hands between two looks, at ", time(h.after), " and ", time(h.at),
				". Whether it was released or had expired is not known."))));
	if (focused) $("filter").focus();
}

// ---- what is said aloud ----

// Acquisitions and releases are the daily life of locks: they are not announced. The rest is, together, every few seconds at most.
let news = [], speaking = 0;
function announce(words) {
	news.push(words);
	if (!speaking) speaking = setTimeout(speak, 300);
}
function speak() {
	speaking = 0;
	if (!news.length) return;
	const more = news.length - 3;
	$("live").textContent = news.slice(0, 3).join(". ") + (more > 0 ? ". And " + more + " more." : ".");
	news = [];
	speaking = setTimeout(speak, 5000);
}
function compare(before, now) {
	if (!before) return;
	const old = new Map(before.locks.map((l) => [keyOf(l), l]));
	for (const l of now.locks) {
		const o = old.get(keyOf(l));
		if (!o) continue;
		if (o.held && l.held && !sameRun(o.holder, l.holder)) announce(titleOf(l) + " is now held by " + runWords(l.holder));
		if (o.enabled !== l.enabled) announce(titleOf(l) + " is " + (l.enabled ? "enabled" : "disabled"));
		if (!o.expired && l.expired) announce(titleOf(l) + " has expired");
	}
}

let noticeTimer = 0;
function notice(words) {
	$("notice").textContent = words;
	clearTimeout(noticeTimer);
	noticeTimer = setTimeout(() => $("notice").textContent = "", 10000);
}

// ---- the connection ----

function connection(kind, words, banner) {
	const c = $("connection"), was = c.dataset.state;
	setAttr(c, "data-state", kind);
	setText($("connection-text"), words);
	$("banner").hidden = !banner;
	setText($("banner-text"), banner || "");
	$("locks").classList.toggle("stale", ["lost", "stale", "forbidden"].includes(kind));
	if (was === kind) return;
	if (banner) announce(banner);
	else if (kind === "live" && was !== "connecting" && was !== "paused") announce("The page is live again");
}

const ofWhen = () => answered ? " What you see is as of " + clock(answered) + "." : "";

function schedule(ms) {
	clearTimeout(timer);
	timer = setTimeout(look, ms);
}

// look asks for the state, and again after a while, until the tab is hidden.
async function look() {
	clearTimeout(timer);
	if (document.hidden) return;
	if (request) request.abort();
	const mine = request = new AbortController();
	const late = setTimeout(() => mine.abort(), patience);
	let answer, got;
	try {
		answer = await fetch(here + "?format=json", {headers: {Accept: "application/json"}, cache: "no-store", redirect: "manual", signal: mine.signal});
		if (answer.type !== "opaqueredirect") got = await answer.json();
	} catch (err) {
		got = undefined;
	} finally {
		clearTimeout(late);
	}
	if (request !== mine) return; // another has begun, or the tab was hidden
	request = null;
	if (answer && (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403)) {
		connection("forbidden", "stopped", "You may not look here, or not any more: " +
			(got && got.error || "you may have to sign in again") + "." + ofWhen());
		return; // until somebody asks for it
	}
	if (!got || !Array.isArray(got.locks)) {
		lostSince = lostSince || new Date();
		const wait = Math.min(longestBackoff, 1000 * 2 ** failures++) * (.75 + Math.random() / 2);
		connection("lost", "connection lost", "Connection lost since " + clock(lostSince) + "." + ofWhen() + " The page keeps trying.");
		schedule(wait);
		return;
	}
	lostSince = null;
	failures = 0;
	compare(state, got);
	state = got;
	readAt = performance.now() - 1000 * got.looked_seconds_ago;
	if (got.looked_at) answered = new Date(Date.now() - 1000 * got.looked_seconds_ago);
	if (answer.ok) {
		connection("live", "live");
		show();
	} else {
		if (got.looked_at) {
			readAt = performance.now(); // the ages stand still, as they were
			show();
		}
		connection("stale", "database not readable", "The table can’t be read." + ofWhen() + " " + got.error);
	}
	schedule(lookEvery);
}

document.addEventListener("visibilitychange", () => {
	if (!document.hidden) return look();
	if (request) request.abort();
	request = null;
	if (live()) connection("paused", "paused");
});
window.addEventListener("online", () => look());
$("retry").addEventListener("click", () => look());
setInterval(() => {
	if (document.hidden || !live()) return;
	for (const row of rows.values()) row.tick();
	summarise([...rows.values()].filter((r) => !r.tr.hidden).length);
}, 1000);

// ---- changes ----

// change sends one, and returns the Result.
async function change(body) {
	try {
		const answer = await fetch(here, {
			method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body), cache: "no-store", redirect: "manual",
		});
		if (answer.type === "opaqueredirect") return {error: "you may have to sign in again"};
		const result = await answer.json();
		return result.outcome || result.error ? result : {error: "the answer is not what was expected"};
	} catch (err) {
		return {error: "no answer that makes sense; whether it was done shows in the table once the page is live"};
	}
}

async function toggle(row) {
	if (row.toggle.getAttribute("aria-disabled") === "true") return;
	const action = row.l.enabled ? "disable" : "enable";
	row.toggle.setAttribute("aria-disabled", "true"); // not disabled, which would take the focus away
	const result = await change({action, component: row.l.component, job: row.l.job});
	row.toggle.removeAttribute("aria-disabled");
	if (result.error) {
		notice("Could not " + action + " " + row.title + ": " + result.error);
		return;
	}
	notice(row.title + " is " + result.outcome + ".");
	row.l.enabled = result.outcome === "enabled"; // so that it isn't announced twice
	row.show(row.l);
	look();
}

let releasing = null; // what the dialog is about: the row, and the holder as it was seen
function confirmRelease(row) {
	releasing = {row, seen: row.l.holder, token: row.l.holder.token};
	setText($("confirm-title"), "Release the lock of " + row.title + "?");
	$("confirm-what").replaceChildren(holderList({...row.l.holder, age_seconds: age(row.l.holder)}));
	$("confirm-refusal").replaceChildren();
	$("confirm-release").hidden = false;
	setText($("confirm-release"), "Release");
	setText($("confirm-cancel"), "Cancel");
	$("confirm").showModal();
	$("confirm-cancel").focus();
}

$("confirm-cancel").addEventListener("click", () => $("confirm").close());
$("confirm-release").addEventListener("click", async () => {
	const button = $("confirm-release"), asked = releasing;
	if (button.getAttribute("aria-disabled") === "true") return;
	button.setAttribute("aria-disabled", "true");
	const {row, seen, token} = asked;
	const body = {action: "release", component: row.l.component, job: row.l.job, component_id: seen.component_id, job_id: seen.job_id};
	if (token) body.token = token;
	const result = await change(body);
	button.removeAttribute("aria-disabled");
	look();
	if (!result.error) {
		if (asked === releasing) $("confirm").close();
		notice(result.outcome === "free" ? "Nobody held the lock of " + row.title + " any more."
			: "The lock of " + row.title + " is released; " + runWords(seen) + " held it.");
		return;
	}
	if (asked !== releasing) return notice("Could not release " + row.title + ": " + result.error);
	const words = {
		held: "Refused: another holds the lock by now.",
		renewed: "Not released: the holder has renewed its lock since you looked. It is alive.",
	}[result.reason] || "Could not release it: " + result.error;
	$("confirm-refusal").replaceChildren(el("p", {}, words), ...(result.holder ? [holderList(result.holder)] : []));
	if (result.reason === "renewed") {
		asked.token = "";
		setText(button, "Release all the same");
	} else if (result.reason) {
		button.hidden = true;
		setText($("confirm-cancel"), "Close");
		$("confirm-cancel").focus();
	}
});
$("confirm").addEventListener("close", () => {
	const {row} = releasing;
	releasing = null;
	(row.release.hidden ? row.toggle : row.release).focus();
});

function showFull(what, s) {
	setText($("full-title"), "The " + what + ", " + number.format([...s].length) + " characters");
	setText($("full-text"), visible(s));
	$("full").showModal();
	$("full-close").focus();
}
$("full-close").addEventListener("click", () => $("full").close());

// ---- the tools ----

function showSort() {
	document.querySelectorAll("#locks [data-sort]").forEach((th) => {
		if (th.dataset.sort === sort.key) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
		else th.removeAttribute("aria-sort");
	});
}
document.querySelectorAll("#locks [data-sort]").forEach((th) => th.firstElementChild.addEventListener("click", () => {
	sort = {key: th.dataset.sort, down: sort.key === th.dataset.sort ? !sort.down : th.dataset.sort === "age"}; // the oldest first
	showSort();
	arrange();
}));
$("filter").addEventListener("input", () => arrange());
$("zone").textContent = "Times are those of your time zone, " + Intl.DateTimeFormat().resolvedOptions().timeZone + ".";

showSort();
look();
