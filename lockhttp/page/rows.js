
// ---- a row of the table ----

// By the database's clock, and what has passed since it was asked.
const since = () => (performance.now() - readAt) / 1000;
const age = (h) => h.age_seconds + since();
const running = (h) => Math.max(0, h.running_seconds + since());

// past is how long ago a change was, by the clock of the process.
const past = (c) => (Date.parse(state.looked_at) - Date.parse(c.at)) / 1000 + since();

const keyOf = (l) => JSON.stringify([l.component, l.job]);
const sameRun = (a, b) => a.component_id === b.component_id && a.job_id === b.job_id;
const isDisabled = (l) => l.states.includes("disabled");

// badges are the states, but for what goes without saying.
function badges(l) {
	const implied = l.states.some((s) => ["expired", "late", "future"].includes(s));
	return l.states.filter((s) =>
		s === "held" ? !implied : s !== "free" || l.states.length === 1);
}

function cell(tag, className, label, ...children) {
	const c = el(tag, {className}, ...children);
	c.setAttribute("role", tag === "th" ? "rowheader" : "cell");
	c.setAttribute("data-label", label);
	if (tag === "th") c.scope = "row";
	return c;
}

class Row {
	constructor(l) {
		this.l = l;
		this.title = titleOf(l);
		this.badges = el("span");
		this.component = el("span");
		this.job = el("button", {type: "button", className: "plain"});
		this.id = el("span", {className: "id"});
		this.running = el("span");
		this.age = el("span");
		this.fill = el("i");
		this.bar = el("div", {className: "bar", hidden: true}, this.fill);
		this.toggle = el("button", {type: "button"});
		this.release = el("button", {type: "button", className: "danger", hidden: true}, "Release…");
		this.actions = cell("td", "actions", "Change", el("div", {}, this.toggle, this.release));
		this.tr = el("tr", {},
			cell("td", "state", "State", this.badges),
			cell("td", "component", "Component", this.component),
			cell("th", "job", "Job", this.job),
			cell("td", "holder", "Holder", this.id),
			cell("td", "running", "Running", this.running),
			cell("td", "age", "Renewed", this.age, this.bar),
			this.actions);
		this.tr.setAttribute("role", "row");
		this.bar.setAttribute("role", "progressbar");
		this.bar.setAttribute("aria-valuemin", "0");
		this.bar.setAttribute("aria-valuemax", "100");
		this.bar.setAttribute("aria-label", "Age of " + this.title + " against its TTL");
		this.release.setAttribute("aria-label", "Release… the lock of " + this.title);
		this.job.addEventListener("click", () => showDetails(this));
		this.toggle.addEventListener("click",
			() => isDisabled(this.l) ? enable(this) : ask(this, "disable"));
		this.release.addEventListener("click", () => ask(this, "release"));
		put(this.component, l.component);
		put(this.job, l.job);
	}

	show(l) {
		const who = l.holder || l.last, before = this.l.holder;
		this.tr.classList.toggle("free-row", !l.holder);
		if (who) {
			put(this.id, who.component_id);
		} else if (this.id.shown !== null) {
			this.id.replaceChildren(el("span", {className: "mark"}, "never held"));
			this.id.shown = null;
		}
		if (l.holder && before && !sameRun(before, l.holder)) {
			this.tr.classList.remove("changed");
			void this.tr.offsetWidth; // so that the animation begins anew
			this.tr.classList.add("changed");
		}
		setText(this.toggle, isDisabled(l) ? "Enable" : "Disable…");
		setAttr(this.toggle, "aria-label", this.toggle.textContent + " " + this.title);
		this.toggle.hidden = this.actions.hidden = !state.may_change;
		const release = state.may_change && l.holder;
		if (!release && document.activeElement === this.release) this.toggle.focus();
		this.release.hidden = !release;
		this.l = l;
		this.tick();
	}

	// tick shows what changes by itself as time passes.
	tick() {
		const {holder, last, ttl_seconds: ttl, changed} = this.l, states = badges(this.l);
		const words = [...states];
		if (words[0] === "disabled" && !words[1] && changed && changed.what === "disabled") {
			words[0] += " " + duration(past(changed)).split(" ", 2).join(" ");
		}
		if (this.badges.textContent !== words.join("")) {
			this.badges.replaceChildren(...words.map((w, i) =>
				el("span", {className: "badge " + states[i]}, w)));
		}
		setText(this.running, holder && holder.started ? duration(running(holder)) : "");
		this.bar.hidden = !holder || !ttl;
		if (!holder) return setText(this.age, last ? ago(age(last)) : "");
		const a = age(holder);
		if (!ttl || a < 0) this.bar.hidden = true;
		if (this.bar.hidden) return setText(this.age, ago(a));
		const over = a > ttl, share = Math.min(1, a / ttl);
		const text = duration(a) + " of " + duration(ttl, true);
		setText(this.age, text);
		this.bar.className = "bar" + (over ? " over" : share >= .75 ? " near" : "");
		this.fill.style.width = (100 * share).toFixed(1) + "%";
		setAttr(this.bar, "aria-valuenow", String(Math.round(100 * share)));
		setAttr(this.bar, "aria-valuetext", text);
	}
}
