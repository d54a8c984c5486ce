// Ratio and clip: one transition on the two curves of the clipped loss.

import { axes, button, canvas, choice, dots, line, panel, readout, slider, within, write } from "./controls.js";

// Settings to start from; the first one is also what Reset goes back to.
const SETTINGS = [
    ["Shapes preset", { shift: 0.03, draw: 2, advantage: 1, range: 1e-3, elements: 1728, sum: false }],
    ["SD3.5, published code", { shift: 0.02, draw: 1, advantage: -1, range: 1e-4, elements: 65536, sum: false }],
    ["PPO: one number", { shift: 0.045, draw: 1.2, advantage: 0.9, range: 0.2, elements: 1, sum: true }],
];
// Reach of the plot, in clip ranges, and the number of points of a curve.
const REACH = 3;
const POINTS = 121;

export function mount(stage, wasm) {
    const demo = new wasm.Clip();
    let [ratio, loss, gradient, density] = [1, 0, 0, 0];

    const view = canvas(stage, {
        height: (width) => Math.min(400, Math.max(290, 0.5 * width)),
        label: "The clipped loss against the ratio, for a positive and a negative advantage, with this transition on its curve.",
        draw,
    });
    const say = readout(stage);
    const sliders = panel(stage);
    const of = (name, options) => slider(sliders, {
        value: SETTINGS[0][1][name],
        change: (value) => { demo[name] = value; compute(); },
        ...options,
    });
    const controls = {
        shift: of("shift", { label: "shift z = Δμ/std", min: 1e-4, max: 1, log: true, show: small }),
        draw: of("draw", {
            label: "place of the draw", min: -4, max: 4, step: 0.1, show: (value) => `${signed(value, 1)} std`,
        }),
        advantage: of("advantage", {
            label: "advantage A", min: -3, max: 3, step: 0.1, show: (value) => signed(value, 1),
        }),
        range: of("range", { label: "clip range κ", min: 1e-5, max: 0.3, log: true, show: small }),
        elements: of("elements", {
            label: "dimensions d", min: 1, max: 65536, log: true,
            show: (value) => Math.round(value).toLocaleString("en"),
            change: (value) => { demo.elements = Math.round(value); compute(); },
        }),
        sum: choice(sliders, {
            label: "log-probability", value: SETTINGS[0][1].sum,
            options: [[false, "mean over d"], [true, "sum over d"]],
            change: (value) => { demo.sum = value; compute(); },
        }),
    };
    const buttons = panel(stage);
    buttons.classList.add("demo-buttons");
    const go = (settings) => Object.entries(settings).forEach(([name, value]) => controls[name].set(value));
    SETTINGS.forEach(([name, settings]) => button(buttons, name, () => go(settings)));
    button(buttons, "Reset", () => go(SETTINGS[0][1]));

    function compute() {
        [ratio, loss, gradient, density] = demo.point();
        const nats = demo.nats();
        say(`ρ = ${ratio.toPrecision(6)}; the whole latent has become ${times(density)} as likely. `
            + `Clip at 1 + κ: ${nats.toPrecision(2)} nats, ${times(nats)} as likely. `
            + (gradient === 0
                ? "No gradient."
                : `Gradient on: it makes the draw ${gradient < 0 ? "more" : "less"} likely.`));
        view.draw();
    }

    function draw({ width, height, colours }) {
        const { advantage, range } = demo;
        const size = Math.abs(advantage) || 1;
        const tall = REACH * Math.max(1, size);
        const [positive, negative] = [size, -size].map((each) => curve(each, range));
        const at = axes(view, { left: 0, top: 34, width, height: height - 34 }, {
            x: [-REACH, REACH], y: [-1.1 * tall, 1.1 * tall],
            xTicks: [-3, -2, -1, 0, 1, 2, 3],
            xLabel: "(ratio − 1)/κ", yLabel: "change of the loss, in κ",
        });
        drawDensity(at, colours);
        for (const side of [-1, 1]) {
            line(view, at, [[side, -1.1 * tall], [side, 1.1 * tall]], { colour: colours.faint, width: 1, dash: [4, 4] });
        }
        within(view, at, () => {
            line(view, at, positive, { colour: colours.blue, width: advantage > 0 ? 3 : 1.5 });
            line(view, at, negative, { colour: colours.orange, width: advantage < 0 ? 3 : 1.5 });
        });
        write(view, "A > 0", at.inside.left + 8, at.y(2.2 * size) + 14, { colour: colours.blue });
        write(view, "A < 0", at.inside.right - 8, at.y(2.2 * size) + 14, { colour: colours.orange, align: "right" });
        drawPoint(at, advantage, range, colours);
    }

    // The loss less its value at ratio 1, in clip ranges.
    function curve(advantage, range) {
        const places = Array.from({ length: POINTS }, (_, i) => REACH * ((2 * i) / (POINTS - 1) - 1));
        const inside = places.filter((place) => 1 + range * place > 0);
        const losses = demo.curve(advantage, Float32Array.from(inside, (place) => 1 + range * place));
        return inside.map((place, i) => [place, (losses[i] + advantage) / range]);
    }

    // Above the plot: the density ratio of the whole latent that belongs to a ratio.
    function drawDensity(at, colours) {
        write(view, "density ratio of the whole latent:", at.inside.left, 12, { colour: colours.faint });
        const factor = demo.sum ? 1 : demo.elements;
        for (const place of [-2, -1, 0, 1, 2]) {
            const nats = factor * Math.log1p(demo.range * place);
            write(view, times(nats), at.x(place), 30, { align: "center", colour: Math.abs(place) === 1 ? colours.ink : colours.faint });
        }
    }

    function drawPoint(at, advantage, range, colours) {
        const place = Math.max(-REACH, Math.min(REACH, (ratio - 1) / range));
        const away = Math.abs((ratio - 1) / range) > REACH;
        const [left] = demo.curve(advantage, Float32Array.of(Math.max(1e-30, 1 + range * place)));
        const height = away ? (left + advantage) / range : (loss + advantage) / range;
        const colour = gradient === 0 ? colours.red : colours.green;
        dots(view, at, [[place, height]], { colour, radius: 7 });
        const [x, y] = [at.x(place), at.y(height)];
        if (gradient === 0) {
            write(view, "no gradient", x, y - 12, { colour, align: place > 1.5 ? "right" : place < -1.5 ? "left" : "center" });
            return;
        }
        const way = -Math.sign(gradient);
        const far = 16 + 14 * Math.min(3, Math.abs(gradient));
        const { context } = view;
        context.strokeStyle = context.fillStyle = colour;
        context.lineWidth = 3;
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(x + way * far, y);
        context.stroke();
        context.beginPath();
        context.moveTo(x + way * (far + 9), y);
        context.lineTo(x + way * (far - 2), y - 6);
        context.lineTo(x + way * (far - 2), y + 6);
        context.fill();
        if (away) write(view, "far outside", x, y - 12, { colour, align: place > 0 ? "right" : "left" });
    }

    go(SETTINGS[0][1]);
}

function small(value) {
    return value >= 0.01 ? String(Number(value.toPrecision(2))) : value.toExponential(0).replace("-", "−");
}

function signed(value, digits) {
    return value.toFixed(digits).replace("-", "−");
}

// A density ratio, from its logarithm.
function times(nats) {
    const ratio = Math.exp(Math.abs(nats));
    const text = ratio >= 1e5 ? `e^${Math.abs(nats).toFixed(0)}` : String(Number(ratio.toPrecision(2)));
    return nats < 0 && text !== "1" ? `1/${text}` : text;
}
