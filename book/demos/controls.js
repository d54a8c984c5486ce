// The parts that demos share: sliders, buttons, canvases, axes, and films that run while they are
// seen. A demo is a module with one function, `mount(stage, wasm)`.

/** Adds an element with attributes to a parent. */
export function add(parent, tag, attributes = {}) {
    const element = document.createElement(tag);
    Object.assign(element, attributes);
    parent.append(element);
    return element;
}

/** Resolves when the page's fonts can be measured. */
export function fontsReady() {
    return document.fonts.ready;
}

/** A row of controls. */
export function panel(stage) {
    return add(stage, "div", { className: "demo-panel" });
}

/**
 * A slider with label, range and value.
 * @param options `label`, `min`, `max`, `step`, `value`, and optionally `log` (the slider moves the
 *   logarithm), `show(value)` (the text of the value), `change(value)` (called when it moves).
 * @returns `{ value, set(value) }`; `set` calls `change`.
 */
export function slider(parent, options) {
    const { label, min, max, step, log = false, change = () => {} } = options;
    const show = options.show ?? ((value) => String(value));
    const label_ = add(parent, "label", { className: "demo-slider" });
    add(label_, "span", { className: "demo-label", textContent: label });
    const input = add(label_, "input", { type: "range" });
    const output = add(label_, "output");
    const [to, from] = log ? [Math.log, Math.exp] : [Number, Number];
    input.min = to(min);
    input.max = to(max);
    input.step = log ? "any" : step;
    const rounded = (value) =>
        log ? Number(from(value).toPrecision(2)) : Number(Number(value).toFixed(6));
    const handle = { value: options.value, set, input };
    const print = () => {
        output.textContent = show(handle.value);
        input.setAttribute("aria-valuetext", output.textContent);
    };
    function set(value) {
        input.value = to(value);
        handle.value = value;
        print();
        change(value);
    }
    input.addEventListener("input", () => {
        handle.value = Math.min(max, Math.max(min, rounded(Number(input.value))));
        print();
        change(handle.value);
    });
    input.value = to(options.value);
    print();
    // A logarithmic slider without steps moves by a hundredth of its range with the arrow keys.
    if (log) input.step = (to(max) - to(min)) / 100;
    return handle;
}

/**
 * A choice among options, `[value, text]` each; numbers stay numbers.
 * @returns `{ value, set(value) }`
 */
export function choice(parent, { label, options, value, change = () => {} }) {
    const label_ = add(parent, "label", { className: "demo-choice" });
    add(label_, "span", { className: "demo-label", textContent: label });
    const select = add(label_, "select");
    options.forEach(([, text]) => add(select, "option", { textContent: text }));
    const handle = { value, set };
    function set(next) {
        select.selectedIndex = options.findIndex(([value]) => value === next);
        handle.value = next;
        change(next);
    }
    select.selectedIndex = options.findIndex(([each]) => each === value);
    select.addEventListener("change", () => set(options[select.selectedIndex][0]));
    return handle;
}

/** A button; returns the element. */
export function button(parent, label, click) {
    const element = add(parent, "button", { type: "button", className: "demo-button" });
    element.textContent = label;
    element.addEventListener("click", click);
    return element;
}

/** A line of text for numbers that change; returns `say(text)`. */
export function readout(stage) {
    const element = add(stage, "p", { className: "demo-readout" });
    return (text) => {
        element.textContent = text;
    };
}

/**
 * A canvas as wide as its parent, sharp on any screen, drawn again when its size or the theme
 * changes.
 * @param options `height` in CSS pixels, a number or a function of the width; `label`, the
 *   description for those who cannot see it; `draw(view)`.
 * @returns a view `{ element, context, width, height, colours, draw() }`; `context` counts in CSS
 *   pixels, and `draw()` clears the canvas and calls the function `draw`.
 */
export function canvas(stage, { height, label, draw }) {
    const element = add(stage, "canvas", { className: "demo-canvas" });
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", label);
    const context = element.getContext("2d");
    const view = { element, context, width: 0, height: 0, colours: colours(stage), draw: redraw };
    function redraw() {
        if (view.width === 0) return;
        context.clearRect(0, 0, view.width, view.height);
        draw(view);
    }
    function resize() {
        const width = Math.floor(element.parentElement.clientWidth);
        const tall = Math.round(typeof height === "function" ? height(width) : height);
        const ratio = window.devicePixelRatio || 1;
        if (width === view.width && tall === view.height && ratio === view.ratio) return;
        Object.assign(view, { width, height: tall, ratio });
        element.style.height = `${tall}px`;
        element.width = Math.round(width * ratio);
        element.height = Math.round(tall * ratio);
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        redraw();
    }
    new ResizeObserver(resize).observe(element.parentElement);
    onTheme(() => {
        view.colours = colours(stage);
        redraw();
    });
    // The first drawing waits until the demo has made everything that `draw` reads.
    queueMicrotask(resize);
    return view;
}

/** The colours of the page's theme, from the variables of mdBook. */
export function colours(element) {
    const style = getComputedStyle(element);
    const of = (name) => style.getPropertyValue(name).trim();
    return {
        ink: of("--fg"),
        ground: of("--bg"),
        faint: of("--demo-faint"),
        grid: of("--demo-grid"),
        // Told apart by brightness, too, for those who do not see red and green apart.
        blue: of("--demo-blue"),
        orange: of("--demo-orange"),
        green: of("--demo-green"),
        red: of("--demo-red"),
    };
}

/** Calls `then` whenever the reader chooses another theme. */
function onTheme(then) {
    new MutationObserver(then).observe(document.documentElement, {
        attributes: true,
        attributeFilter: ["class"],
    });
}

/**
 * Axes in a box of a view.
 * @param box `{ left, top, width, height }` in CSS pixels, labels included
 * @param options `x: [from, to]`, `y: [from, to]` (either may fall), `xLabel`, `yLabel`, `xTicks`,
 *   `yTicks` (numbers; chosen if missing; none if empty), `logX`, `logY`, `title`
 * @returns `{ x(value), y(value), inside }`: positions in pixels and the box of the data
 */
export function axes(view, box, options) {
    const { context, colours } = view;
    const { x, y, xLabel = "", yLabel = "", logX = false, logY = false, title = "" } = options;
    const xTicks = options.xTicks ?? ticks(x, logX);
    const yTicks = options.yTicks ?? ticks(y, logY);
    context.font = `12px ${FONT}`;
    const widest = Math.max(0, ...yTicks.map((tick) => context.measureText(text(tick)).width));
    const inside = {
        left: box.left + (yTicks.length ? widest + 8 : 4) + (yLabel ? 16 : 0),
        top: box.top + (title ? 20 : 6),
        right: box.left + box.width - 6,
        bottom: box.top + box.height - (xTicks.length ? 18 : 4) - (xLabel ? 16 : 0),
    };
    const map = ([from, to], low, high, log) => {
        const f = log ? Math.log : Number;
        return (value) => low + ((f(value) - f(from)) / (f(to) - f(from))) * (high - low);
    };
    const at = {
        x: map(x, inside.left, inside.right, logX),
        y: map(y, inside.bottom, inside.top, logY),
        inside,
    };
    context.strokeStyle = colours.grid;
    context.lineWidth = 1;
    context.fillStyle = colours.ink;
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const tick of xTicks) {
        stroke(context, [[at.x(tick), inside.top], [at.x(tick), inside.bottom]]);
        context.fillText(text(tick), at.x(tick), inside.bottom + 4);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of yTicks) {
        stroke(context, [[inside.left, at.y(tick)], [inside.right, at.y(tick)]]);
        context.fillText(text(tick), inside.left - 5, at.y(tick));
    }
    context.textAlign = "center";
    context.textBaseline = "bottom";
    const middle = (inside.left + inside.right) / 2;
    if (xLabel) context.fillText(xLabel, middle, box.top + box.height);
    if (title) context.fillText(title, middle, box.top + 15);
    if (yLabel) {
        context.save();
        context.translate(box.left + 14, (inside.top + inside.bottom) / 2);
        context.rotate(-Math.PI / 2);
        context.fillText(yLabel, 0, 0);
        context.restore();
    }
    return at;
}

const FONT = "\"Open Sans\", sans-serif";

/** Draws only inside the axes while `draw` runs. */
export function within(view, at, draw) {
    const { left, top, right, bottom } = at.inside;
    view.context.save();
    view.context.beginPath();
    view.context.rect(left, top, right - left, bottom - top);
    view.context.clip();
    draw();
    view.context.restore();
}

/** A line through points `[x, y]`, in the coordinates of axes; a point that is not finite breaks it. */
export function line(view, at, points, { colour, width = 2, dash = [] }) {
    const { context } = view;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.lineJoin = "round";
    context.beginPath();
    let down = false;
    for (const [x, y] of points) {
        if (Number.isFinite(x) && Number.isFinite(y)) {
            down ? context.lineTo(at.x(x), at.y(y)) : context.moveTo(at.x(x), at.y(y));
            down = true;
        } else {
            down = false;
        }
    }
    context.stroke();
    context.setLineDash([]);
}

/** Dots at points `[x, y]`, in the coordinates of axes. */
export function dots(view, at, points, { colour, radius = 2 }) {
    const { context } = view;
    context.fillStyle = colour;
    if (radius < 2) {
        // Thousands of small dots are squares: circles would cost most of a frame.
        for (const [x, y] of points) {
            context.fillRect(at.x(x) - radius, at.y(y) - radius, 2 * radius, 2 * radius);
        }
        return;
    }
    context.beginPath();
    for (const [x, y] of points) {
        context.moveTo(at.x(x) + radius, at.y(y));
        context.arc(at.x(x), at.y(y), radius, 0, 2 * Math.PI);
    }
    context.fill();
}

/** Text at pixels; `align` as in canvas. */
export function write(view, words, x, y, { colour, align = "left", size = 12 } = {}) {
    const { context } = view;
    context.font = `${size}px ${FONT}`;
    context.fillStyle = colour ?? view.colours.ink;
    context.textAlign = align;
    context.textBaseline = "alphabetic";
    context.fillText(words, x, y);
}

/**
 * A film: calls `frame(seconds since the last frame)` at every frame of the screen while the stage
 * is in view.
 * @returns `{ running, start(), stop() }`
 */
export function film(stage, frame) {
    const handle = { running: false, start, stop };
    let [visible, asked, last] = [false, false, undefined];
    function ask() {
        if (!asked && visible && handle.running) {
            asked = true;
            requestAnimationFrame(next);
        }
    }
    function next(now) {
        asked = false;
        if (!visible || !handle.running) return;
        // A tab that was hidden does not make up for lost time.
        const seconds = last === undefined ? 0 : Math.min(0.1, (now - last) / 1000);
        last = now;
        frame(seconds);
        ask();
    }
    function start() {
        handle.running = true;
        last = undefined;
        ask();
    }
    function stop() {
        handle.running = false;
    }
    new IntersectionObserver(([entry]) => {
        visible = entry.isIntersecting;
        last = undefined;
        ask();
    }).observe(stage);
    return handle;
}

/** Whether the reader asked the system for less motion; films then wait for a button. */
export function lessMotion() {
    return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Round numbers between the ends of an axis. */
function ticks([from, to], log) {
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    if (log) {
        const powers = [];
        for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * 1.0001; power++) {
            powers.push(10 ** power);
        }
        return powers;
    }
    const rough = (high - low) / 5;
    const scale = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * scale).find((step) => step >= rough);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
        found.push(i * step);
    }
    return found;
}

function text(value) {
    return String(Number(value.toPrecision(6))).replace("-", "−");
}

function stroke(context, points) {
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
}
