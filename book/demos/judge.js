// Judge and cheat: a picture, what the verifier sees in it, and what the proxy believes.

import { add, button, canvas, choice, film, panel, readout, slider, write } from "./controls.js";

const SIDE = 24;
// The most steps up the proxy's gradient, and the seconds between two of them in a film.
const STEPS = 60;
const PACE = 0.12;
// Tools: the side of a brush, or the index of a shape to stamp.
const BRUSHES = [1, 2, 4];
const START = { tool: "brush 2", colour: 0, prompt: 2, run: "hacked" };
// The largest side of a picture on the screen.
const LARGEST = 340;
// The height of the bars below the picture.
const SCORES = 42;
// Colours of blobs in the mask, by number.
const BLOBS = ["blue", "orange", "green", "red"];

const SHAPES = 4;
// Two columns, or one on a phone.
const COLUMNS = "display:grid;grid-template-columns:repeat(auto-fit,minmax(min(15em,100%),1fr));gap:0.4em 1.2em;font-size:0.85em";

// Columns of controls with room for long words.
const WIDE = "repeat(auto-fill,minmax(min(24em,100%),1fr))";

export function mount(stage, wasm) {
    const judge = new wasm.Judge();
    const palette = judge.palette();
    const background = palette.length / 3 - 1;
    const state = { ...START, cursor: [12, 12], focused: false, seed: 1 };

    const top = panel(stage);
    top.style.gridTemplateColumns = WIDE;
    const prompt = choice(top, {
        label: "prompt", value: state.prompt, options: judge.prompts().map((text, i) => [i, text]),
        change: (value) => { state.prompt = value; judge.choose(value); fresh(); },
    });
    const pair = add(stage, "div");
    pair.style.cssText = COLUMNS;
    const square = (width) => Math.min(width, LARGEST);
    const picture = canvas(add(pair, "div"), { height: (width) => square(width) + SCORES, label: "The picture. Arrow keys move the cursor, space paints.", draw: drawPicture });
    const mask = canvas(add(pair, "div"), { height: square, label: "The verifier's mask, with its blobs.", draw: drawMask });
    const say = readout(stage);
    say("");

    const tools = panel(stage);
    tools.style.gridTemplateColumns = WIDE;
    const tool = choice(tools, {
        label: "tool", value: state.tool,
        options: [
            ...BRUSHES.map((size) => [`brush ${size}`, `brush of ${size} x ${size} pixels`]),
            ...judge.shapes().map((shape, i) => [`stamp ${i}`, `a whole ${shape}`]),
        ],
        change: (value) => { state.tool = value; picture.draw(); },
    });
    const steps = slider(tools, {
        label: "steps up the proxy", min: 0, max: STEPS, step: 1, value: 0,
        change: (value) => { judge.climb_to(value); look(); },
    });
    // The pictures that two runs made for the prompt, epoch by epoch.
    const runs = panel(stage);
    runs.style.gridTemplateColumns = WIDE;
    const epochs = judge.epochs();
    const taken = () => drawn(() => judge.take(run.value === "held", epoch.value));
    const run = choice(runs, {
        label: "picture of a run", value: START.run,
        options: [["hacked", "without a KL penalty"], ["held", "with a KL weight of 0.4"]],
        change: () => taken(),
    });
    const epoch = slider(runs, {
        label: "after epoch", min: 0, max: epochs.length - 1, step: 1, value: epochs.length - 1,
        show: (index) => String(epochs[index]), change: () => taken(),
    });
    const swatches = panel(stage);
    swatches.classList.add("demo-buttons");
    swatches.setAttribute("aria-label", "colour of the brush");
    const names = ["red", "green", "blue", "yellow", "magenta", "cyan", "background"];
    const chips = names.map((name, colour) => {
        const chip = button(swatches, "", () => choose(colour));
        chip.style.cssText = `background:${rgb(palette, colour)};width:34px;padding:0;border-width:3px`;
        chip.title = name;
        chip.setAttribute("aria-label", name);
        return chip;
    });
    const buttons = panel(stage);
    buttons.classList.add("demo-buttons");
    button(buttons, "Draw what is asked", () => drawn(() => judge.draw_scene(state.seed++)));
    button(buttons, "Empty", () => drawn(() => judge.clear()));
    let waited = 0;
    const climb = film(stage, (seconds) => {
        waited += seconds;
        if (waited < PACE) return;
        waited = 0;
        if (steps.value >= STEPS) climb.stop();
        else steps.set(steps.value + 1);
    });
    button(buttons, "Climb the proxy", () => (climb.running ? climb.stop() : climb.start()));
    button(buttons, "Reset", () => {
        state.seed = 1;
        tool.set(START.tool);
        choose(START.colour);
        prompt.set(START.prompt);
        run.set(START.run);
        epoch.set(epochs.length - 1);
        drawn(() => judge.draw_scene(0));
    });

    const below = add(stage, "div");
    below.style.cssText = COLUMNS;
    const [verifier, proxy] = [add(below, "div"), add(below, "div")];
    let seen = {};

    function choose(colour) {
        state.colour = colour;
        chips.forEach((chip, i) => {
            chip.style.borderColor = i === colour ? "var(--links)" : "transparent";
            chip.setAttribute("aria-pressed", String(i === colour));
        });
    }

    function drawn(change) {
        change();
        fresh();
    }

    // After a change of the picture or the prompt, the climb starts anew.
    function fresh() {
        climb.stop();
        steps.set(0);
    }

    function look() {
        const gold = judge.verdict() === "right";
        seen = {
            pixels: judge.pixels(), mask: judge.mask(), names: judge.names(), fits: judge.fits(),
            questions: judge.questions(), beliefs: judge.beliefs(), proxy: judge.proxy(),
        };
        const marks = judge.marks();
        say(`Verifier: ${gold ? "gold 1, right" : `gold 0, fault: ${judge.verdict()}`}, partial score ${judge.partial().toFixed(2)}`
            + `${marks ? ` (${marks})` : ""}. Proxy: ${seen.proxy.toFixed(2)}.`
            + (seen.proxy > 0.9 && !gold ? " The proxy is fooled." : ""));
        [picture, mask].forEach((view) => view.draw());
        showBars();
    }

    // The side of a pixel and the corner of the picture in a view.
    function layout({ width }) {
        const side = Math.floor(Math.min(width, LARGEST) / SIDE);
        return { side, left: Math.floor((width - side * SIDE) / 2), top: 0 };
    }

    function drawPicture({ context, colours, ...view }) {
        const { side, left, top } = layout(view);
        if (!seen.pixels) return;
        for (let i = 0; i < SIDE * SIDE; i++) {
            context.fillStyle = rgb(seen.pixels, i);
            context.fillRect(left + (i % SIDE) * side, top + Math.floor(i / SIDE) * side, side, side);
        }
        drawTool(context, left, top, side, colours);
        drawScores(context, top + SIDE * side, left, SIDE * side, colours);
    }

    // The outline of what the tool would paint at the cursor.
    function drawTool(context, left, top, side, colours) {
        const [kind, number] = state.tool.split(" ");
        const [row, column] = state.cursor;
        context.strokeStyle = state.focused ? colours.orange : "rgb(255 255 255 / 70%)";
        context.lineWidth = state.focused ? 2 : 1;
        context.beginPath();
        if (kind === "brush") {
            const before = Math.floor((Number(number) - 1) / 2);
            context.rect(left + (column - before) * side, top + (row - before) * side, Number(number) * side, Number(number) * side);
        } else {
            outline(context, Number(number), left + (column + 0.5) * side, top + (row + 0.5) * side, 9 * side);
        }
        context.stroke();
    }

    // Below the picture: gold and proxy as bars.
    function drawScores(context, y, left, wide, colours) {
        const gold = judge.verdict() === "right" ? 1 : 0;
        [["gold", gold, colours.green], ["proxy", seen.proxy, colours.orange]].forEach(([name, value, colour], i) => {
            const row = y + 8 + 17 * i;
            write({ context, colours }, name, left, row + 10);
            context.fillStyle = colours.grid;
            context.fillRect(left + 44, row, wide - 44 - 36, 11);
            context.fillStyle = colour;
            context.fillRect(left + 44, row, (wide - 44 - 36) * value, 11);
            write({ context, colours }, value.toFixed(2), left + wide, row + 10, { align: "right" });
        });
    }

    function drawMask({ context, colours, ...view }) {
        const { side, left, top } = layout(view);
        if (!seen.mask) return;
        context.fillStyle = colours.grid;
        context.fillRect(left, top, side * SIDE, side * SIDE);
        const places = seen.names.map(() => [0, 0, 0]);
        seen.mask.forEach((what, i) => {
            if (what === 0) return;
            const [row, column] = [Math.floor(i / SIDE), i % SIDE];
            context.fillStyle = what === 1 ? colours.ink : colours[BLOBS[(what - 2) % BLOBS.length]];
            context.fillRect(left + column * side, top + row * side, side, side);
            if (what > 1) places[what - 2] = places[what - 2].map((sum, k) => sum + [row, column, 1][k]);
        });
        places.forEach(([row, column, count], i) => {
            const [x, y] = [left + (column / count + 0.5) * side, top + (row / count + 0.5) * side];
            write({ context, colours }, String(i + 1), x, y + 5, { align: "center", size: 15, colour: colours.ground });
        });
        if (seen.names.length === 0) {
            write({ context, colours }, "no blob", left + (side * SIDE) / 2, top + (side * SIDE) / 2, { align: "center", colour: colours.faint });
        }
    }

    function showBars() {
        const { names, fits, questions, beliefs } = seen;
        const least = judge.least_fit();
        const of_blob = (name, blob) => {
            const colour = `var(--demo-${BLOBS[blob % BLOBS.length]})`;
            const fit = (shape, i) => ({ name: shape, value: fits[SHAPES * blob + i], mark: least, colour });
            return [{ heading: `${blob + 1}: ${name}`, colour }, ...judge.shapes().map(fit)];
        };
        const shown = names.slice(0, BLOBS.length).flatMap(of_blob);
        const more = names.length - BLOBS.length;
        if (names.length === 0) shown.push({ heading: "no blob" });
        if (more > 0) shown.push({ heading: `and ${more} more` });
        bars(verifier, `Verifier: fit of each shape, accepted from ${least.toFixed(2)}`, shown);
        const asked = questions.map((name, i) => ({ name, value: beliefs[i], colour: "var(--fg)" }));
        bars(proxy, "Proxy: belief in each part of the prompt", asked);
    }

    // Painting, by pointer or by keyboard.
    const element = picture.element;
    element.tabIndex = 0;
    element.style.touchAction = "none";
    element.style.cursor = "crosshair";
    element.setAttribute("role", "application");
    let down = false;

    function use() {
        const [kind, number] = state.tool.split(" ");
        const [row, column] = state.cursor;
        if (kind === "brush") judge.paint(row, column, Number(number), state.colour);
        else judge.stamp(Number(number), state.colour, row, column);
        fresh();
    }

    // Moves the cursor to an event; whether it is another pixel.
    function point(event) {
        const { side, left, top } = layout(picture);
        const box = element.getBoundingClientRect();
        const place = (from, start) => Math.max(0, Math.min(SIDE - 1, Math.floor((from - start) / side)));
        const next = [place(event.clientY, box.top + top), place(event.clientX, box.left + left)];
        const moved = next.some((value, i) => value !== state.cursor[i]);
        state.cursor = next;
        return moved;
    }

    element.addEventListener("pointerdown", (event) => {
        down = true;
        element.setPointerCapture(event.pointerId);
        point(event);
        use();
    });
    element.addEventListener("pointermove", (event) => {
        if (down && point(event) && state.tool.startsWith("brush")) use();
    });
    ["pointerup", "pointercancel"].forEach((name) => element.addEventListener(name, () => { down = false; }));
    ["focus", "blur"].forEach((name) => element.addEventListener(name, () => {
        state.focused = name === "focus" && element.matches(":focus-visible");
        picture.draw();
    }));
    element.addEventListener("keydown", (event) => {
        const way = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (!way && event.key !== " ") return;
        event.preventDefault();
        state.focused = true;
        if (way) state.cursor = state.cursor.map((value, i) => Math.max(0, Math.min(SIDE - 1, value + way[i])));
        else use();
        picture.draw();
    });

    choose(state.colour);
    judge.choose(state.prompt);
    judge.draw_scene(0);
    look();
}

// The outline of a shape by its index, in the order of the task: circle, square, triangle, cross.
function outline(context, shape, x, y, size) {
    const half = size / 2;
    const arm = 0.17 * size;
    const corners = [
        [],
        [[-0.45 * size, -0.45 * size], [0.45 * size, -0.45 * size], [0.45 * size, 0.45 * size], [-0.45 * size, 0.45 * size]],
        [[0, -half], [half, half], [-half, half]],
        [
            [-arm, -half], [arm, -half], [arm, -arm], [half, -arm], [half, arm], [arm, arm],
            [arm, half], [-arm, half], [-arm, arm], [-half, arm], [-half, -arm], [-arm, -arm],
        ],
    ][shape];
    if (shape === 0) context.arc(x, y, half, 0, 2 * Math.PI);
    corners.forEach(([right, down]) => context.lineTo(x + right, y + down));
    context.closePath();
}

// Bars with names and values, in place of what `parent` had.
function bars(parent, title, rows) {
    parent.replaceChildren();
    add(parent, "div", { textContent: title }).style.cssText = "font-weight:600;margin-top:0.3em";
    for (const { heading, name, value, mark, colour } of rows) {
        if (heading) {
            add(parent, "div", { textContent: heading }).style.cssText = `color:${colour ?? "inherit"};margin-top:0.2em`;
            continue;
        }
        const row = add(parent, "div");
        row.style.cssText = "display:grid;grid-template-columns:minmax(6em,11em) 1fr 2.6em;gap:0.5em;align-items:center;line-height:1.45";
        add(row, "span", { textContent: name }).style.cssText = "text-align:right;line-height:1.2";
        const track = add(row, "span");
        track.style.cssText = "position:relative;height:10px;background:var(--demo-grid)";
        add(track, "span").style.cssText = `position:absolute;inset:0 auto 0 0;width:${100 * value}%;background:${colour}`;
        if (mark !== undefined) {
            add(track, "span").style.cssText = `position:absolute;left:${100 * mark}%;top:-2px;bottom:-2px;width:2px;background:var(--fg)`;
        }
        add(row, "span", { textContent: value.toFixed(2) }).style.cssText = "font-variant-numeric:tabular-nums";
    }
}

function rgb(bytes, index) {
    return `rgb(${bytes[3 * index]} ${bytes[3 * index + 1]} ${bytes[3 * index + 2]})`;
}
