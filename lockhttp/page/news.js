
// ---- what is said aloud ----

// Acquisitions and releases are the daily life of locks: they are not announced. The rest is,
// together, every few seconds at most.
let news = [], speaking = 0;
function announce(words) {
	news.push(words);
	if (!speaking) speaking = setTimeout(speak, 300);
}
function speak() {
	speaking = 0;
	if (!news.length) return;
	const more = news.length - 3;
	$("live").textContent = news.slice(0, 3).join(". ") +
		(more > 0 ? ". And " + more + " more." : ".");
	news = [];
	speaking = setTimeout(speak, 5000);
}
function compare(before, now) {
	if (!before) return;
	const old = new Map(before.locks.map((l) => [keyOf(l), l]));
	for (const l of now.locks) {
		const o = old.get(keyOf(l));
		if (!o) continue;
		if (o.holder && l.holder && !sameRun(o.holder, l.holder)) {
			announce(titleOf(l) + " is now held by " + runWords(l.holder));
		}
		const is = (s) => l.states.includes(s), was = (s) => o.states.includes(s);
		if (is("disabled") !== was("disabled")) {
			announce(titleOf(l) + " is " + (is("disabled") ? "disabled" : "enabled"));
		}
		if (is("expired") && !was("expired")) announce(titleOf(l) + " has expired");
		if (is("failing") && !was("failing")) announce(titleOf(l) + " is failing");
	}
}

let noticeTimer = 0;
function notice(words) {
	$("notice").textContent = words;
	clearTimeout(noticeTimer);
	noticeTimer = setTimeout(() => $("notice").textContent = "", 10000);
}
