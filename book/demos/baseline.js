// Policy gradient: two hundred estimates of one gradient, with several baselines.

import { axes, button, canvas, choice, panel, readout, slider, within, write } from "./controls.js";

const START = { size: 4, kind: "Nothing", offset: 10, noise: 0 };
// The number of arrows, and the reaches of the axes to choose from.
const ARROWS = 200;
const REACHES = [1, 2, 5].flatMap((factor) => [1, 10, 100].map((scale) => factor * scale)).sort((a, b) => a - b);

export function mount(stage, wasm) {
    const state = { ...START, seed: 1 };
    let demo = new wasm.Baseline(state.seed);
    let [estimates, summary] = [[], []];

    const view = canvas(stage, {
        height: (width) => Math.min(420, Math.max(260, 0.55 * width)),
        label: "Arrows of gradient estimates around the exact gradient.",
        draw,
    });
    const say = readout(stage);
    const sliders = panel(stage);
    const kind = choice(sliders, {
        label: "baseline", value: state.kind,
        options: [
            ["Nothing", "none"],
            ["GroupMean", "group mean"],
            ["LeaveOneOut", "leave-one-out"],
            ["GroupSpread", "group mean, divided by the group's std"],
        ],
        change: (value) => { state.kind = value; compute(); },
    });
    const size = slider(sliders, {
        label: "samples G", min: 2, max: 64, step: 1, value: state.size,
        change: (value) => { state.size = value; compute(); },
    });
    const offset = slider(sliders, {
        label: "reward offset", min: 0, max: 100, step: 1, value: state.offset,
        change: (value) => { state.offset = value; compute(); },
    });
    const noise = slider(sliders, {
        label: "reward noise", min: 0, max: 5, step: 0.1, value: state.noise, show: (value) => value.toFixed(1),
        change: (value) => { state.noise = value; compute(); },
    });
    const buttons = panel(stage);
    buttons.classList.add("demo-buttons");
    button(buttons, "New draws", () => draws(state.seed + 1));
    button(buttons, "Reset", () => {
        kind.set(START.kind);
        size.set(START.size);
        offset.set(START.offset);
        noise.set(START.noise);
        draws(1);
    });

    function draws(seed) {
        state.seed = seed;
        demo.free();
        demo = new wasm.Baseline(seed);
        compute();
    }

    function compute() {
        estimates = demo.estimates(wasm.BaselineKind[state.kind], state.size, state.offset, state.noise);
        summary = demo.summary(estimates);
        const [mean, , variance, , backwards] = summary;
        const error = Math.sqrt(variance / (estimates.length / 2));
        say(`Along the exact gradient, over ${estimates.length / 2} groups: mean ${short(mean)} ± ${short(error)} (exact 1), `
            + `variance ${short(variance)}. Backwards: ${(100 * backwards).toFixed(0)} %.`);
        view.draw();
    }

    function draw({ width, height, colours, context }) {
        const shown = estimates.slice(0, 2 * ARROWS);
        const high = Array.from(shown, Math.abs).sort((a, b) => a - b)[Math.floor(0.97 * shown.length)];
        const reach = REACHES.find((each) => each >= 1.1 * Math.max(high, 1.6)) ?? REACHES.at(-1);
        const wide = (reach * (width - 60)) / (height - 50);
        const at = axes(view, { left: 0, top: 0, width, height }, {
            x: [-wide, wide], y: [-reach, reach],
            xLabel: "∂/∂θ₁: what the reward sees", yLabel: "∂/∂θ₂: what it does not see",
        });
        const arrow = (x, y, colour, thick) => {
            context.strokeStyle = colour;
            context.lineWidth = thick;
            context.beginPath();
            context.moveTo(at.x(0), at.y(0));
            context.lineTo(at.x(x), at.y(y));
            context.stroke();
            const angle = Math.atan2(at.y(y) - at.y(0), at.x(x) - at.x(0));
            context.fillStyle = colour;
            context.beginPath();
            context.moveTo(at.x(x), at.y(y));
            for (const turn of [2.7, -2.7]) {
                const far = 4 + 2 * thick;
                context.lineTo(at.x(x) + far * Math.cos(angle + turn), at.y(y) + far * Math.sin(angle + turn));
            }
            context.fill();
        };
        within(view, at, () => {
            context.globalAlpha = 0.45;
            for (let i = 0; i < shown.length; i += 2) {
                arrow(shown[i], shown[i + 1], shown[i] < 0 ? colours.red : colours.blue, 1);
            }
            context.globalAlpha = 1;
            arrow(summary[0], summary[1], colours.ink, 2);
            arrow(1, 0, colours.orange, 4);
        });
        const [x, y] = [at.inside.right - 6, at.inside.top + 14];
        write(view, "exact gradient", x, y, { align: "right", colour: colours.orange });
        write(view, "mean of the estimates", x, y + 16, { align: "right" });
        write(view, "200 estimates", x, y + 32, { align: "right", colour: colours.blue });
        write(view, "… that point backwards", x, y + 48, { align: "right", colour: colours.red });
    }

    compute();
}

function short(value) {
    const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
    return value.toFixed(digits).replace("-", "−");
}
