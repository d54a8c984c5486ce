// Runs in a page: starts a demo, brings it to the state that its still shows, and says where it is.
// `data-still` names the state: sliders and choices with their value, buttons with the number of
// clicks, as in "after epoch = 80; One step = 3". Without it the still shows how the demo starts.
async (index) => {
    const demo = document.querySelectorAll(".demo")[index];
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    document.querySelector("#mdbook-menu-bar, #menu-bar")?.remove();
    const still = demo.querySelector("img").getAttribute("src");
    demo.scrollIntoView({ block: "start", behavior: "instant" });
    for (let i = 0; i < 1800 && !demo.matches(".alive, .failed"); i++) await frame();
    if (!demo.matches(".alive")) throw Error(`${demo.dataset.demo} did not start`);

    const steps = (from, to, by) => Array.from({ length: Math.round((to - from) / by) + 1 }, (_, i) => from + i * by);
    async function bring(name, value) {
        const button = [...demo.querySelectorAll("button")].find((each) => each.textContent === name);
        if (button) {
            for (let i = 0; i < Number(value); i++) {
                button.click();
                await frame();
            }
            return;
        }
        const controls = [...demo.querySelectorAll("input[type=range], select")];
        const control = controls.find((each) => each.parentElement.textContent.startsWith(name));
        if (!control) throw Error(`${demo.dataset.demo} has no control "${name}"`);
        // A slider shows its value in words of its own.
        const shown = () => control.matches("select")
            ? control.selectedOptions[0].textContent
            : control.parentElement.querySelector("output").textContent;
        const values = control.matches("select")
            ? [...control.options].map((each) => each.value)
            : steps(Number(control.min), Number(control.max), Number(control.step));
        for (const one of values) {
            control.value = one;
            for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, { bubbles: true }));
            if (shown() === value) return frame();
        }
        throw Error(`${demo.dataset.demo}: "${name}" cannot be "${value}"`);
    }
    const state = (demo.dataset.still ?? "").split(";").filter((part) => part.trim() !== "");
    for (const part of state) await bring(...part.split("=").map((side) => side.trim()));

    // Curves below a demo grow while nothing else happens.
    const drawings = () => [...demo.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()).join();
    let [before, same] = ["", 0];
    for (let i = 0; i < 1200 && same < 60; i++) {
        await frame();
        const now = drawings();
        same = now === before ? same + 1 : 0;
        before = now;
    }
    const { left, top, width, height } = demo.getBoundingClientRect();
    return { still, box: [left + scrollX, top + scrollY, width, height] };
}
