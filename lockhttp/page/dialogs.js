
// ---- dialogs, and what they change ----

function holderEntries(h) {
	return [
		["Holder", whole(h.component_id)],
		["Run", whole(h.job_id)],
		["Started", h.started && [time(h.started), ", " + duration(running(h)) + " ago"]],
		["Renewed", [time(h.lock_time), ", " + ago(age(h))]],
	];
}
function changedEntry(l) {
	const c = l.changed;
	return ["Last change", c && [happened(c) + " ", time(c.at), ", " + duration(past(c)) + " ago"]];
}

function showDetails({l, title}) {
	const {holder, last} = l;
	setText($("details-title"), title);
	$("details-text").replaceChildren(list(
		["State", l.states.join(", ")],
		["Component", whole(l.component)],
		["Job", whole(l.job)],
		...(holder ? holderEntries(holder) : []),
		...(last ? [["Last holder", whole(last.component_id)], ["Last run", whole(last.job_id)],
			["Lock time", [time(last.lock_time), ", " + ago(age(last))]]] : []),
		["TTL", l.ttl_seconds && duration(l.ttl_seconds, true)],
		["Failed", l.failed_at && [time(l.failed_at), l.failure ? ": " + visible(l.failure) : ""]],
		changedEntry(l)));
	$("details").showModal();
	$("details-close").focus();
}
$("details-close").addEventListener("click", () => $("details").close());

// send sends a command, and returns the Result.
async function send(body) {
	try {
		const answer = await fetch(here, {method: "POST", headers: {"Content-Type": "application/json"},
			body: JSON.stringify(body), cache: "no-store", redirect: "manual"});
		if (answer.type === "opaqueredirect") return {error: "you may have to sign in again"};
		const result = await answer.json();
		return result.outcome || result.error ? result : {error: "the answer is not what was expected"};
	} catch (err) {
		return {error: "no answer; the table shows whether it was done once the page is live"};
	}
}

// once calls f unless the button is busy. A disabled button would lose the focus.
async function once(button, f) {
	if (button.getAttribute("aria-disabled") === "true") return;
	button.setAttribute("aria-disabled", "true");
	try { await f(); } finally { button.removeAttribute("aria-disabled"); }
}

// done notes an outcome in the row, so that it isn't announced twice, and looks again.
function done(row, result) {
	const states = row.l.states.filter((s) => s !== "disabled");
	if (result.outcome === "disabled") states.unshift("disabled");
	if (result.outcome !== "released") row.show({...row.l, states});
	notice(result.outcome === "released" ? "The lock of " + row.title + " is released."
		: row.title + " is " + result.outcome + ".");
	look();
}

const enable = (row) => once(row.toggle, async () => {
	const result = await send({action: "enable", component: row.l.component, job: row.l.job});
	if (result.error) return notice("Could not enable " + row.title + ": " + result.error);
	done(row, result);
});

const effects = {
	disable: "Nobody can acquire the lock until the job is enabled again. A run that holds it now " +
		"goes on.",
	release: "A holder that is alive is not stopped by this: it may go on working while another " +
		"begins. Release the lock of one that is gone; to keep a job from running, disable it.",
};

let asking = null; // what the dialog is about: the row, the action, and the holder that was seen
function ask(row, action) {
	const l = row.l, word = action === "disable" ? "Disable" : "Release";
	asking = {row, action, seen: l.holder};
	setText($("confirm-title"),
		word + (action === "disable" ? " " : " the lock of ") + row.title + "?");
	$("confirm-what").replaceChildren(list(
		...(l.holder ? holderEntries(l.holder) : [["Holder", "Nobody holds the lock now."]]),
		changedEntry(l)));
	setText($("confirm-effect"), effects[action]);
	$("confirm-refusal").replaceChildren();
	$("confirm-do").hidden = false;
	setText($("confirm-do"), word);
	setText($("confirm-cancel"), "Cancel");
	$("confirm").showModal();
	$("confirm-cancel").focus();
}
$("confirm-cancel").addEventListener("click", () => $("confirm").close());
$("confirm-do").addEventListener("click", () => once($("confirm-do"), async () => {
	const asked = asking, {row, action, seen} = asked;
	const body = {action, component: row.l.component, job: row.l.job};
	if (action === "release") {
		const {component_id, job_id, lock_time} = seen;
		Object.assign(body, {component_id, job_id, lock_time});
	}
	const result = await send(body);
	if (!result.error) {
		if (asked === asking) $("confirm").close();
		return done(row, result);
	}
	look();
	const failed = "Could not " + action + " " + row.title + ": " + result.error;
	if (asked !== asking) return notice(failed);
	refused(result, failed);
}));

// refused says why in the dialog. What it shows of the holder is then what was seen.
function refused(result, failed) {
	const words = {
		held: "Refused: another holds the lock now.",
		renewed: "Refused: the holder has renewed its lock since you looked. It is alive.",
	}[result.reason] || failed;
	$("confirm-refusal").replaceChildren(el("p", {}, words),
		...(result.holder ? [list(...holderEntries({...result.holder,
			age_seconds: result.holder.age_seconds - since(),
			running_seconds: result.holder.running_seconds - since()}))] : []));
	if (result.reason === "renewed") {
		asking.seen = result.holder;
		setText($("confirm-do"), "Release all the same");
	} else if (result.reason) {
		$("confirm-do").hidden = true;
		setText($("confirm-cancel"), "Close");
		$("confirm-cancel").focus();
	}
}
$("confirm").addEventListener("close", () => {
	if ($("confirm").open) return; // again, by now
	const {row, action} = asking;
	asking = null;
	const button = action === "release" && !row.release.hidden ? row.release : row.toggle;
	(button.isConnected ? button : $("search")).focus();
});
