// Pairs and flow: lines between noise and data, their mean velocity, and particles that follow it.

import { axes, button, canvas, dots, film, line, panel, readout, slider, within, write } from "./controls.js";

const START = { gap: 2.4, pairs: 60, steps: 20, t: 0.6 };
// Where arrows are drawn, how long they are in time, and how near a pair must pass to count.
const PLACES = Float32Array.from({ length: 27 }, (_, i) => 0.25 * (i - 13));
const LENGTH = 0.09;
const REACH = 0.12;
// The range of the plot, and the seconds of a film from noise to data.
const TOP = 3.4;
const SECONDS = 4;
const BINS = 48;

export function mount(stage, wasm) {
    const state = { ...START };
    let demo = new wasm.Pairs(state.gap);
    let [pairs, paths, ends, data] = [[], [], [], []];

    const view = canvas(stage, {
        height: (width) => Math.min(430, Math.max(300, 0.55 * width)),
        label: "Lines between noise on the left and data on the right, arrows of their mean velocity, and paths of particles.",
        draw,
    });
    const say = readout(stage);
    const sliders = panel(stage);
    const t = slider(sliders, {
        label: "time t", min: 0, max: 1, step: 0.01, value: state.t, show: (value) => value.toFixed(2),
        change: (value) => { state.t = value; view.draw(); },
    });
    const shown = slider(sliders, {
        label: "pairs shown", min: 0, max: 200, step: 1, value: state.pairs,
        change: (value) => { state.pairs = value; compute(); },
    });
    const steps = slider(sliders, {
        label: "Euler steps", min: 1, max: 50, step: 1, value: state.steps,
        change: (value) => { state.steps = value; compute(); },
    });
    const gap = slider(sliders, {
        label: "gap of the blobs", min: 0, max: 4, step: 0.1, value: state.gap, show: (value) => value.toFixed(1),
        change: (value) => {
            state.gap = value;
            demo.free();
            demo = new wasm.Pairs(value);
            compute();
        },
    });
    const buttons = panel(stage);
    buttons.classList.add("demo-buttons");
    const run = film(stage, (seconds) => {
        if (state.t <= 0) run.stop();
        t.set(Math.max(0, state.t - seconds / SECONDS));
    });
    button(buttons, "Run", () => {
        t.set(1);
        run.start();
    });
    button(buttons, "One step", () => steps.set(1));
    button(buttons, "Reset", () => {
        run.stop();
        t.set(START.t);
        shown.set(START.pairs);
        steps.set(START.steps);
        gap.set(START.gap);
    });

    function compute() {
        pairs = demo.pairs(state.pairs);
        paths = demo.paths(state.steps);
        ends = demo.ends(state.steps);
        data = histogram(demo.pairs(4000).filter((_, i) => i % 2 === 0));
        const [mean, spread] = demo.data();
        const [at, wide] = wasm.mean_and_std(ends);
        say(`Data: mean ${sign(mean)}, spread ${spread.toFixed(2)}. Particles at the end: mean ${sign(at)}, spread ${wide.toFixed(2)}`
            + ` (${state.steps} step${state.steps === 1 ? "" : "s"}).`);
        ends = histogram(ends);
        view.draw();
    }

    function draw({ width, height, colours, context }) {
        const side = Math.max(56, 0.14 * width);
        const at = axes(view, { left: 0, top: 0, width: width - side, height }, {
            x: [1, 0], y: [-TOP, TOP], xLabel: "time t: noise to data", yLabel: "x",
            xTicks: [1, 0.8, 0.6, 0.4, 0.2, 0], yTicks: [-3, -2, -1, 0, 1, 2, 3],
        });
        within(view, at, () => {
            drawPairs(at, colours, context);
            drawPaths(at, colours);
            drawArrows(at, colours, context);
            line(view, at, [[state.t, -TOP], [state.t, TOP]], { colour: colours.faint, width: 1, dash: [4, 4] });
        });
        drawEnds(at, width - side, side, colours, context);
    }

    function drawPairs(at, colours, context) {
        context.globalAlpha = 0.55;
        const lines = [];
        for (let i = 0; i < pairs.length; i += 2) {
            lines.push([1, pairs[i + 1]], [0, pairs[i]], [NaN, NaN]); // NaN lifts the pen.
        }
        line(view, at, lines, { colour: colours.faint, width: 1 });
        context.globalAlpha = 1;
    }

    function drawPaths(at, colours) {
        const count = demo.particles();
        const n = state.steps;
        const place = (i, particle) => paths[i * count + particle];
        const [lines, now_at] = [[], []];
        for (let particle = 0; particle < count; particle++) {
            const all = Array.from({ length: n + 1 }, (_, i) => [1 - i / n, place(i, particle)]);
            const passed = Math.min(n, Math.floor((1 - state.t) * n + 1e-9));
            const rest = (1 - state.t) * n - passed;
            const here = rest > 1e-6
                ? place(passed, particle) + rest * (place(passed + 1, particle) - place(passed, particle))
                : place(passed, particle);
            const now = [state.t, here];
            lines.push(...all.slice(0, passed + 1), now, [NaN, NaN]);
            now_at.push(now);
        }
        line(view, at, lines, { colour: colours.blue, width: 1.5 });
        dots(view, at, now_at, { colour: colours.blue, radius: 3 });
    }

    // The arrows are the velocity of the flow, read towards the data; a ring is where the mean of the
    // pairs that pass nearby points.
    function drawArrows(at, colours, context) {
        const means = demo.local_means(state.t, PLACES, REACH);
        const velocities = demo.velocity(Math.max(state.t, 1e-3), PLACES);
        PLACES.forEach((x, i) => {
            if (!Number.isFinite(means[i])) return;
            const tip = [state.t - LENGTH, x - LENGTH * velocities[i]];
            line(view, at, [[state.t, x], tip], { colour: colours.orange, width: 2 });
            head(context, at, [state.t, x], tip, colours.orange);
            context.strokeStyle = colours.ink;
            context.lineWidth = 1.2;
            context.beginPath();
            context.arc(at.x(tip[0]), at.y(x - LENGTH * means[i]), 4, 0, 2 * Math.PI);
            context.stroke();
        });
    }

    // On the right: the data as an area, the ends of 2,000 particles as a line.
    function drawEnds(at, left, side, colours, context) {
        const most = Math.max(...data) * 1.6;
        const x = (share) => left + 4 + Math.min(1, share / most) * (side - 10);
        const y = (i) => at.y(-TOP + (2 * TOP * i) / BINS);
        context.fillStyle = colours.grid;
        data.forEach((share, i) => context.fillRect(x(0), y(i + 1), x(share) - x(0), y(i) - y(i + 1)));
        context.strokeStyle = colours.blue;
        context.lineWidth = 1.5;
        context.beginPath();
        ends.forEach((share, i) => {
            context.lineTo(x(share), y(i));
            context.lineTo(x(share), y(i + 1));
        });
        context.stroke();
        const middle = left + side / 2;
        write(view, "data", middle, at.inside.bottom + 14, { align: "center", colour: colours.faint });
        write(view, "particles", middle, at.inside.bottom + 29, { align: "center", colour: colours.blue });
    }

    compute();
}

function histogram(values) {
    const counts = new Array(BINS).fill(0);
    for (const value of values) {
        const bin = Math.floor(((value + TOP) / (2 * TOP)) * BINS);
        if (bin >= 0 && bin < BINS) counts[bin] += 1 / values.length;
    }
    return counts;
}

function head(context, at, from, to, colour) {
    const [x, y] = [at.x(to[0]), at.y(to[1])];
    const angle = Math.atan2(y - at.y(from[1]), x - at.x(from[0]));
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(x, y);
    for (const turn of [2.65, -2.65]) {
        context.lineTo(x + 8 * Math.cos(angle + turn), y + 8 * Math.sin(angle + turn));
    }
    context.fill();
}

function sign(value) {
    return value.toFixed(2).replace("-", "−");
}
