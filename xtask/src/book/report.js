// Runs in the report of a run: moves its switches and its cursor, and says what does not react.
async () => {
    const problems = [];
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const figure = document.querySelector(".panel[data-panel]");
    if (!figure) return ["it has no curves"];
    figure.scrollIntoView({ block: "center", behavior: "instant" });
    const changes = async (what, act) => {
        const before = document.body.innerHTML;
        act();
        for (let i = 0; i < 30 && document.body.innerHTML === before; i++) await frame();
        if (document.body.innerHTML === before) problems.push(`${what} changes nothing`);
    };
    const say = (element, kind) => element.dispatchEvent(new Event(kind, { bubbles: true }));
    const { x, smooth, log } = document.getElementById("controls");
    for (const option of [...x.options].filter((option) => !option.disabled && option.index > 0)) {
        await changes(`the axis of ${option.text}`, () => {
            x.selectedIndex = option.index;
            say(x, "input");
            say(x, "change");
        });
    }
    await changes("smoothing", () => {
        smooth.value = (Number(smooth.min || 0) + Number(smooth.max || 1)) / 2;
        say(smooth, "input");
        say(smooth, "change");
    });
    await changes("the logarithmic axis", () => log.click());
    await changes("the pointer on a curve", () => {
        const { left, top, width, height } = figure.querySelector("svg").getBoundingClientRect();
        const at = { clientX: left + width / 2, clientY: top + height / 2, bubbles: true };
        figure.querySelector("svg").dispatchEvent(new PointerEvent("pointermove", at));
    });
    await changes("an arrow key on a curve", () => {
        const key = { key: "ArrowLeft", bubbles: true };
        figure.querySelector("svg").dispatchEvent(new KeyboardEvent("keydown", key));
    });
    for (const slider of document.querySelectorAll("section.images input[type=range]")) {
        if (slider.max === "0") continue;
        await changes("the slider of the images", () => {
            slider.value = 0;
            say(slider, "input");
        });
    }
    // The table of all points goes into a file, which is read here instead.
    const files = [];
    const click = HTMLAnchorElement.prototype.click;
    HTMLAnchorElement.prototype.click = function () { files.push(this); };
    document.getElementById("csv").click();
    HTMLAnchorElement.prototype.click = click;
    const table = files.length === 1 ? await (await fetch(files[0].href)).text() : "";
    const [head, ...rows] = table.trim().split("\n");
    if (!head?.startsWith("run,panel,line,epoch") || rows.length < 10) {
        problems.push(`the button of the table gives ${files.length} files with ${rows.length} rows`);
    }
    const root = document.documentElement;
    const scheme = root.style.colorScheme;
    document.getElementById("theme").click();
    if (root.style.colorScheme === scheme) problems.push("the button of the theme changes nothing");
    return problems;
}
