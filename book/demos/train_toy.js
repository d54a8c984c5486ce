// Train the toy: the project's trainer on eight clusters of points, one epoch a frame. A click or the
// arrow keys choose the rewarded place.

import {
    add, axes, button, canvas, dots, film, line, panel, readout, slider, within, write,
} from "./controls.js";

const START = { noise: 0.7, group: 32, rate: 1e-3, updates: 2, kl: 0, random: 9 };
const PLACE = [2, 0];
const REACH = 3.2;
/** How far an arrow key moves the rewarded place. */
const STRIDE = 0.2;
const FIRST_EPOCHS = 30;
const CLUSTERS = 8;
/** A frame draws the points anew in this many parts, one after the other. */
const PARTS = 8;
/** Epochs of a run that nobody sees: a browser compiles code, drawing too, fully only after it has run for a while. */
const REHEARSED = 24;

export function mount(stage, wasm) {
    const settings = { ...START };
    let place = [...PLACE];
    let run = fresh();
    const base = run.points();
    const diversityOfBase = wasm.TrainToy.diversity(base);
    const points = base.slice(); // x and y of one after the other.
    let history = []; // The numbers of each epoch.
    let fault = "";

    const view = canvas(stage, {
        height: (width) => (width < 560 ? width + 200 : Math.max(280, 0.46 * width)),
        label: "Points of the policy among eight clusters, the rewarded place, and the curves of the run. Arrow keys move the place.",
        draw,
    });
    const say = readout(stage);
    const buttons = add(stage, "div", { className: "demo-panel demo-buttons" });
    const start = button(buttons, "Run", () => {
        if (training.running) {
            training.stop();
            points.set(run.points());
            view.draw();
        } else {
            training.start();
        }
        label();
    });
    button(buttons, "One epoch", () => {
        training.stop();
        label();
        epoch();
        points.set(run.points());
        view.draw();
    });
    button(buttons, "Reset", () => {
        training.stop();
        label();
        place = [...PLACE];
        for (const [name, handle] of Object.entries(sliders)) {
            settings[name] = START[name];
            handle.set(START[name]);
        }
        restart();
    });
    const controls = panel(stage);
    const plain = (name, label, min, max, show = String) =>
        slider(controls, { label, min, max, step: 1, value: START[name], show, change: set(name) });
    const sliders = {
        noise: slider(controls, {
            label: "noise level a", min: 0.1, max: 2, step: 0.05, value: START.noise,
            show: (value) => value.toFixed(2), change: set("noise"),
        }),
        group: slider(controls, {
            label: "group size G", min: 2, max: 256, log: true, value: START.group,
            show: (value) => String(Math.round(value)), change: (value) => set("group")(Math.round(value)),
        }),
        rate: slider(controls, {
            label: "learning rate", min: 1e-4, max: 3e-2, log: true, value: START.rate,
            show: (value) => value.toExponential(1).replace("e-", "·10⁻").replace(/⁻(\d)/, (_, d) => `⁻${"⁰¹²³⁴⁵"[d]}`),
            change: set("rate"),
        }),
        updates: plain("updates", "updates an epoch", 1, 8),
        kl: slider(controls, {
            label: "KL weight β", min: 0, max: 0.5, step: 0.01, value: START.kl,
            show: (value) => value.toFixed(2), change: set("kl"),
        }),
        random: plain("random", "random steps", 1, 9, (value) => `${value} of 10`),
    };

    function fresh() {
        return new wasm.TrainToy(...numbers(), 1);
    }
    function numbers() {
        const { noise, group, rate, updates, kl, random } = settings;
        return [noise, group, rate, updates, kl, random, ...place];
    }
    function set(name) {
        return (value) => {
            settings[name] = value;
            change();
        };
    }
    function change() {
        run.change(...numbers());
        fault = "";
        view.draw();
    }
    function restart() {
        run.free();
        run = fresh();
        points.set(base);
        history = [];
        fault = "";
        view.draw();
    }
    function label() {
        start.textContent = training.running ? "Pause" : "Run";
    }

    /** Draws a part of the points by the present policy. */
    function refresh(part) {
        const count = points.length / 2 / PARTS;
        points.set(run.points_of(part * count, count), 2 * part * count);
    }
    function epoch() {
        try {
            const { reward, ratio_min, ratio_max, clipped, kl, zero_spread } = run.epoch();
            refresh(history.length % PARTS);
            const clusters = wasm.TrainToy.clusters(points);
            const diversity = wasm.TrainToy.diversity(points) / diversityOfBase;
            history.push({ reward, ratio_min, ratio_max, clipped, kl, zero_spread, clusters, diversity });
        } catch (error) {
            fault = String(error);
            training.stop();
            label();
        }
    }
    const training = film(stage, () => {
        epoch();
        view.draw();
    });

    /** Moves the rewarded place. */
    function reward(where) {
        place = where;
        change();
    }
    view.element.tabIndex = 0;
    view.element.setAttribute("role", "application");
    view.element.style.cursor = "crosshair";
    view.element.addEventListener("click", (event) => {
        const { left, top } = view.element.getBoundingClientRect();
        const { inside } = view.plane;
        const [x, y] = [event.clientX - left, event.clientY - top];
        if (x < inside.left || x > inside.right || y < inside.top || y > inside.bottom) return;
        const share = [(x - inside.left) / (inside.right - inside.left), (inside.bottom - y) / (inside.bottom - inside.top)];
        reward(share.map((each) => (2 * each - 1) * REACH));
    });
    view.element.addEventListener("keydown", (event) => {
        const way = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
        if (!way) return;
        event.preventDefault();
        reward(place.map((each, i) => Math.max(-REACH, Math.min(REACH, each + STRIDE * way[i]))));
    });

    /** The points of the base model, on a canvas that is drawn once for a size and a theme. */
    let ground;
    function drawGround(at, colours, context) {
        const { width, height } = view.element;
        const key = [width, height, at.x(0), at.x(1), at.y(0), colours.faint].join();
        if (ground?.key !== key) {
            const sheet = Object.assign(document.createElement("canvas"), { width, height });
            const own = sheet.getContext("2d");
            own.setTransform(context.getTransform());
            dots({ context: own }, at, pairs(base), { colour: colours.faint, radius: 1 });
            ground = { key, sheet };
        }
        context.save();
        context.resetTransform();
        context.drawImage(ground.sheet, 0, 0);
        context.restore();
    }

    function draw({ colours, width, height, context }) {
        const narrow = width < 560;
        const side = narrow ? width : Math.min(height, width * 0.52);
        const at = axes(view, { left: 0, top: 0, width: side, height: side }, {
            x: [-REACH, REACH], y: [-REACH, REACH], xTicks: [-2, 0, 2], yTicks: [-2, 0, 2],
        });
        view.plane = at;
        within(view, at, () => {
            // The reward: a hill of half a unit, as rings at one, two and three widths.
            context.strokeStyle = colours.green;
            for (const ring of [0.5, 1, 1.5]) {
                context.globalAlpha = 0.9 - 0.5 * ring;
                context.beginPath();
                context.lineWidth = 2;
                context.arc(at.x(place[0]), at.y(place[1]), at.x(ring) - at.x(0), 0, 2 * Math.PI);
                context.stroke();
            }
            context.globalAlpha = 1;
            drawGround(at, colours, context);
            dots(view, at, pairs(points), { colour: colours.blue, radius: 1.8 });
        });
        write(view, "+", at.x(place[0]), at.y(place[1]) + 6, { colour: colours.green, align: "center", size: 20 });
        const [left, top] = narrow ? [0, side + 4] : [side + 8, 0];
        const [wide, tall] = narrow ? [width / 3, height - side - 4] : [width - side - 8, height / 3];
        const panels = [
            ["reward", [0, 1], [0, 0.5, 1], [["reward", colours.green]]],
            ["ratio, smallest and largest", around(history), [], [["ratio_min", colours.orange], ["ratio_max", colours.orange]]],
            ["clusters in use", [0, CLUSTERS + 0.5], [1, 4, 8], [["clusters", colours.blue]]],
        ];
        panels.forEach(([title, y, yTicks, curves], i) => {
            const box = { left: left + (narrow ? i * wide : 0), top: top + (narrow ? 0 : i * tall), width: wide, height: tall };
            const last = Math.max(FIRST_EPOCHS, history.length);
            const plot = axes(view, box, {
                x: [0, last], y, yTicks: yTicks.length ? yTicks : ratioTicks(y),
                title: narrow ? title.split(",")[0] : title,
                xTicks: narrow ? [0, last] : undefined,
            });
            within(view, plot, () => {
                for (const [name, colour] of curves) {
                    line(view, plot, history.map((one, i) => [i + 1, one[name]]), { colour, width: 1.5 });
                }
            });
        });
        say(fault || numbersOf(history));
    }

    /** Trains a run that nobody sees, an epoch at a time, or until the reader starts one. */
    function rehearse(unseen, left) {
        if (left === 0 || training.running || history.length > 0) {
            unseen.free();
            return;
        }
        unseen.epoch();
        unseen.points_of(0, points.length / 2 / PARTS);
        view.draw();
        setTimeout(() => rehearse(unseen, left - 1));
    }

    label();
    setTimeout(() => rehearse(fresh(), REHEARSED));
}

function numbersOf(history) {
    const last = history.at(-1);
    if (!last) return "Run trains; a click into the plane, or the arrow keys there, choose the rewarded place.";
    const shown = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
    return `Epoch ${history.length}: reward ${shown(last.reward, 2)}, clipped ${shown(100 * last.clipped, 0)} %, ` +
        `KL ${Number.isFinite(last.kl) ? last.kl.toExponential(1) : "–"}, zero spread ${shown(last.zero_spread, 0)}, ` +
        `clusters in use ${shown(last.clusters, 1)}, diversity ${shown(last.diversity, 2)} of the base's`;
}

/** The range of the ratios, at least from 0.9 to 1.1. */
function around(history) {
    const far = Math.max(0.1, ...history.slice(-200).map((one) => Math.max(one.ratio_max - 1, 1 - one.ratio_min)).filter(Number.isFinite));
    return [1 - Math.min(1, far) * 1.1, 1 + far * 1.1];
}

function ratioTicks([low, high]) {
    const round = (value) => Number(value.toPrecision(2));
    return [round(1 - (1 - low) / 1.1), 1, round(1 + (high - 1) / 1.1)];
}

function pairs(values) {
    const points = [];
    for (let i = 0; i < values.length; i += 2) points.push([values[i], values[i + 1]]);
    return points;
}
