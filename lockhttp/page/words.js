"use strict";
// Whatever comes from the table is put into the page as text, never as HTML.
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

// visible shows what would otherwise be invisible or turn the text around, as its code.
const invisible = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu;
const visible = (s) => s.replace(invisible, (c) => "\\u{" + c.codePointAt(0).toString(16) + "}");

// short is a text of at most 64 characters for one that is longer.
function short(s) {
	if (s.length <= 64) return visible(s);
	const head = [...s.slice(0, 100)].slice(0, 40), tail = [...s.slice(-40)].slice(-16);
	return visible(head.join("") + "…" + tail.join(""));
}
const named = (s) => s === "" ? "(empty)" : short(s);
const titleOf = (l) => named(l.component) + " / " + named(l.job);
const runWords = (h) => named(h.component_id) + ", run " + named(h.job_id);

// duration is in the largest unit that it has, and the next one up to ten of it; one that is to be
// exact, and is short, in milliseconds.
function duration(s, exact) {
	if (exact && s < 10) return number.format(Math.round(s * 1000)) + " ms";
	s = Math.max(0, Math.floor(s));
	if (s === 0) return "0 s";
	const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
	const i = units.findIndex(([, size]) => s >= size);
	const first = Math.floor(s / units[i][1]);
	const rest = i < 3 && first < 10 ? Math.floor(s % units[i][1] / units[i + 1][1]) : 0;
	return number.format(first) + " " + units[i][0] + (rest ? " " + rest + " " + units[i + 1][0] : "");
}
const ago = (s) => s < 0 ? duration(-s) + " ahead" : duration(s) + " ago";

const two = (n) => String(n).padStart(2, "0");
const clock = (d) => two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds());
function day(d) {
	if (d.toDateString() === new Date().toDateString()) return clock(d);
	const year = String(d.getFullYear()).padStart(4, "0");
	return year + "-" + two(d.getMonth() + 1) + "-" + two(d.getDate()) + " " + clock(d);
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
	return el("time", {dateTime: iso, title: iso}, day(new Date(iso)));
}

// put shows a name or an ID in e, isolated from the direction of what is around it.
function put(e, s) {
	if (e.shown === s) return;
	e.shown = s;
	const text = named(s);
	e.replaceChildren(el("bdi", {className: s === "" ? "mark" : "text", title: text}, text));
}
function id(s) {
	const e = el("span", {className: "id"});
	put(e, s);
	return e;
}
const whole = (s) => s === "" ? id(s) : el("bdi", {className: "id text"}, visible(s));

// list is of terms and what they mean; what is null is left out.
function list(...entries) {
	const known = entries.filter(([, what]) => what);
	return el("dl", {}, ...known.flatMap(([term, what]) =>
		[el("dt", {}, term), el("dd", {}, ...[what].flat())]));
}
