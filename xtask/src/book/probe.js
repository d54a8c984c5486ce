// Runs in a page: starts a demo, moves its controls, and says what is wrong with it.
async (index, moves) => {
    const problems = [];
    const demo = document.querySelectorAll(".demo")[index];
    const name = demo.dataset.demo;
    const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const box = () => {
        const { left, top, width, height } = demo.getBoundingClientRect();
        return [left + scrollX, top + scrollY, width, height];
    };
    // The menu would hide a part of tall demos.
    document.querySelector("#mdbook-menu-bar, #menu-bar")?.remove();
    // A page of one demo keeps it below the first screens.
    const far = demo.getBoundingClientRect().top > innerHeight + 400;
    if (index === 0 && far && demo.matches(".alive")) problems.push("it was loaded before it came into view");
    demo.scrollIntoView({ block: "start", behavior: "instant" });
    for (let i = 0; i < 600 && !demo.matches(".alive, .failed"); i++) await pause(50);
    if (!demo.matches(".alive")) {
        const reason = demo.querySelector(".demo-reason")?.textContent ?? "it did not start in 30 s";
        return { name, problems: [reason], frames: 0, box: box() };
    }
    for (let i = 0; i < 10; i++) await frame();

    const canvases = () => [...demo.querySelectorAll("canvas")];
    const drawing = () => canvases().map((canvas) => canvas.toDataURL()).join();
    const fits = () => {
        const wide = document.documentElement.scrollWidth - innerWidth;
        if (wide > 0) problems.push(`the page is ${wide} px too wide`);
        for (const element of demo.querySelectorAll("canvas, input, button, select, output")) {
            const { left, right } = element.getBoundingClientRect();
            if (left < -1 || right > innerWidth + 1) {
                problems.push(`${element.tagName} reaches from ${left} to ${right} px`);
            }
        }
    };
    fits();
    if (canvases().length === 0) problems.push("it has no canvas");

    let frames = 0;
    if (moves) {
        // A demo that waits for its reader is started. He looks at it first, and it may rehearse.
        await pause(1000);
        const named = (name) => [...demo.querySelectorAll("button")].find((each) => each.textContent === name);
        named("Run")?.click();
        const began = performance.now();
        while (performance.now() - began < 2000) {
            await frame();
            frames += 1;
        }
        frames /= (performance.now() - began) / 1000;

        const changes = async (what, act) => {
            const before = drawing();
            act();
            for (let i = 0; i < 40; i++) {
                await frame();
                if (drawing() !== before) return;
            }
            problems.push(`${what} changes no drawing`);
        };
        for (const slider of demo.querySelectorAll("input[type=range]")) {
            const label = slider.parentElement.textContent;
            const at = slider.value;
            for (const to of [slider.min, slider.max, at]) {
                if (slider.value === to) continue;
                await changes(`the slider ${label} at ${to}`, () => {
                    slider.value = to;
                    slider.dispatchEvent(new Event("input", { bubbles: true }));
                    slider.dispatchEvent(new Event("change", { bubbles: true }));
                });
            }
        }
        for (const select of demo.querySelectorAll("select")) {
            const at = select.selectedIndex;
            const others = [...select.options].map((_, i) => i).filter((i) => i !== at);
            for (const to of [...others, at]) {
                await changes(`the choice ${select.options[to].textContent}`, () => {
                    select.selectedIndex = to;
                    select.dispatchEvent(new Event("change", { bubbles: true }));
                });
            }
        }
        for (const button of demo.querySelectorAll("button")) {
            button.click();
            for (let i = 0; i < 10; i++) await frame();
        }
        named("Reset")?.click();
        named("Run")?.click();
        fits();
    }
    // Long enough for a film to show something.
    await pause(1500);
    return { name, problems, frames, box: box() };
}
