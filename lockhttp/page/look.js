
const lookEvery = 2000, longestBackoff = 30000, patience = 20000; // in milliseconds
const heldEvery = 250; // where the server answers when there is news
const here = location.origin + location.pathname; // wherever it is mounted

let answered = null;  // when the table was read, as a Date
let lostSince = null; // when the first of the requests failed that have failed since
let failures = 0;
let timer = 0, request = null;
const live = () => $("connection").dataset.state === "live";

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
	else if (kind === "live" && !["connecting", "paused"].includes(was)) {
		announce("The page is live again");
	}
}

const ofWhen = () => answered ? " What you see is as of " + clock(answered) + "." : "";

function schedule(ms, after) {
	clearTimeout(timer);
	timer = setTimeout(() => look(after), ms);
}

// look asks for the state, or for one that is later than another, and again after a while, until
// the tab is hidden.
async function look(after) {
	clearTimeout(timer);
	if (document.hidden) return;
	if (request) request.abort();
	const mine = request = new AbortController();
	const late = setTimeout(() => mine.abort(), patience);
	let answer, got;
	const asked = query();
	if (after) asked.set("after", after);
	try {
		answer = await fetch(here + "?" + asked, {headers: {Accept: "application/json"},
			cache: "no-store", redirect: "manual", signal: mine.signal});
		if (answer.type !== "opaqueredirect") got = await answer.json();
	} catch (err) {
		got = undefined;
	} finally {
		clearTimeout(late);
	}
	if (request !== mine) return; // another has begun, or the tab was hidden
	request = null;
	if (answer && (answer.type === "opaqueredirect" || [401, 403].includes(answer.status))) {
		connection("forbidden", "stopped", "You may not look here, or not any more: " +
			(got && got.error || "you may have to sign in again") + "." + ofWhen());
		return; // until somebody asks for it
	}
	if (!got || !Array.isArray(got.locks)) {
		lostSince = lostSince || new Date();
		const wait = Math.min(longestBackoff, 1000 * 2 ** failures++) * (.75 + Math.random() / 2);
		connection("lost", "connection lost", "Connection lost since " + clock(lostSince) + "." +
			ofWhen() + " The page keeps trying.");
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
		connection("stale", "database not readable",
			"The table can’t be read." + ofWhen() + " " + got.error);
	}
	if (answer.ok && got.may_wait) schedule(heldEvery, got.looked_at);
	else schedule(lookEvery);
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
}, 1000);

look();
