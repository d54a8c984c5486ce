// Runs in a page: brings what a reader can type on or touch in a demo into view, one at a time, with
// the focus on it; says where it is and which keys act on it. Nothing if there are no more of them.
(index, number) => {
    const demo = document.querySelectorAll(".demo")[index];
    const all = [...demo.querySelectorAll("input[type=range], canvas[tabindex]")];
    const element = all[number];
    if (!element) return null;
    element.scrollIntoView({ block: "center", behavior: "instant" });
    element.focus();
    const { left, top, width, height } = element.getBoundingClientRect();
    const drawings = [...demo.querySelectorAll("canvas")];
    const slides = element.matches("input");
    const seen = () => (slides ? element.value : drawings.map((canvas) => canvas.toDataURL()).join());
    const before = seen();
    globalThis.changed = async () => {
        for (let i = 0; i < 120 && seen() === before; i++) await new Promise(requestAnimationFrame);
        return seen() !== before;
    };
    const what = slides ? `the slider ${element.parentElement.textContent}` : "the drawing";
    if (!slides) return { what, keys: ["ArrowRight", " "], x: left + width / 3, y: top + height / 4 };
    const high = Number(element.value) > (Number(element.min) + Number(element.max)) / 2;
    return {
        what, keys: [high ? "ArrowLeft" : "ArrowRight"],
        x: left + (high ? 0.1 : 0.9) * width, y: top + height / 2,
    };
}
