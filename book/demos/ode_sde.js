// ODE or SDE: particles go from noise to data; their histogram stands beside the exact density, and
// below is the distance between the two against the number of steps. With a tilt, the exact density is
// that of the tilted data, and the ODE follows the velocity that was best for the SDE.

import {
    add, axes, button, canvas, choice, dots, film, lessMotion, line, panel, readout, slider, within, write,
} from "./controls.js";

const PARTICLES = 2000;
/** Particles whose paths are drawn. */
const PATHS = 24;
/** Particles of the curve below, whose distance by chance is smaller. */
const MANY = 8000;
const NUMBERS_OF_STEPS = [3, 5, 10, 20, 40, 80, 160, 200];
const REACH = 3.5;
const SECONDS = 4;
const PAUSE = 1.5;
const FUTURES = 0.7; // The point of noise from which all futures start.
const CALM = { noise: 0.7, steps: 10, shift: 1, twice: "", share: 1, ode: 0, tilt: 0 };

export function mount(stage, wasm) {
    const demo = new wasm.OdeSde(PARTICLES, 1);
    const twin = new wasm.OdeSde(PARTICLES, 1); // The ODE with the velocity of a tilted SDE.
    twin.follow_ode(true);
    const survey = new wasm.OdeSde(MANY, 1);
    let byChance; // The distances of exact draws.
    // A page can begin with a tilt: `data-tilt`.
    const START = { ...CALM, tilt: Number(stage.parentElement.dataset.tilt ?? CALM.tilt) };
    const settings = { ...START };
    let seed = 1;
    let futures = false; // Whether all particles start at the same point.
    let path = []; // The places of all particles at the times passed so far.
    let twins = []; // Those of the twin.
    let clock = 0; // Seconds since the particles left the noise.
    let times = demo.times();
    let curve = []; // Points [steps, distance] of the survey.
    let curveOfOde = [];
    let heat; // The exact density at all times, as an image, for a tilt.

    const view = canvas(stage, {
        height: (width) => Math.max(230, Math.min(340, 0.42 * width)),
        label: "Paths of particles from noise to data, and their histogram on the exact density",
        draw: drawPaths,
    });
    const say = readout(stage);
    const controls = panel(stage);
    const sliders = {
        noise: slider(controls, {
            label: "noise level a", min: 0, max: 2, step: 0.05, value: START.noise,
            show: (value) => value.toFixed(2), change: set("noise"),
        }),
        steps: slider(controls, {
            label: "steps N", min: 3, max: 200, log: true, value: START.steps,
            show: (value) => String(Math.round(value)), change: (value) => set("steps")(Math.round(value)),
        }),
        share: slider(controls, {
            label: "share of the score", min: 0, max: 1.5, step: 0.05, value: START.share,
            show: (value) => value.toFixed(2), change: set("share"),
        }),
        ode: slider(controls, {
            label: "ODE steps at the end", min: 0, max: 20, step: 1, value: START.ode, change: set("ode"),
        }),
        tilt: slider(controls, {
            label: "tilt λ", min: 0, max: 1.5, step: 0.05, value: START.tilt,
            show: (value) => value.toFixed(2), change: set("tilt"),
        }),
        shift: slider(controls, {
            label: "shift of the grid χ", min: 1, max: 6, step: 0.5, value: START.shift, change: set("shift"),
        }),
        twice: choice(controls, {
            label: "grid", value: START.twice, change: set("twice"),
            options: [["", "shifted once"], ["yes", "shifted twice, as for SD3"]],
        }),
    };
    const buttons = add(stage, "div", { className: "demo-panel demo-buttons" });
    const same = button(buttons, "Same x₁, many futures", () => {
        futures = !futures;
        same.setAttribute("aria-pressed", futures);
        restart();
        moving.start();
    });
    const run = button(buttons, "Pause", () => (moving.running ? moving.stop() : moving.start(), label()));
    button(buttons, "Reset", () => {
        futures = false;
        same.setAttribute("aria-pressed", false);
        for (const [name, handle] of Object.entries(sliders)) handle.set(START[name]);
    });
    const below = canvas(stage, {
        height: 190,
        label: "Distance of the samples from the exact density against the number of steps",
        draw: drawCurve,
    });

    function set(name) {
        return (value) => {
            settings[name] = value;
            choose();
        };
    }
    function choose() {
        chooseFor(demo, settings.steps);
        if (settings.tilt > 0) chooseFor(twin, settings.steps);
        times = demo.times();
        [curve, curveOfOde] = [[], []];
        survey.follow_ode(false);
        chooseFor(survey, NUMBERS_OF_STEPS[0]);
        if (heat?.tilt !== settings.tilt) {
            heat = { ...densities(demo), tilt: settings.tilt };
            byChance = { few: demo.distance_by_chance(), many: survey.distance_by_chance() };
        }
        restart();
        below.draw();
    }
    function chooseFor(one, steps) {
        const { noise, shift, twice, share, ode, tilt } = settings;
        one.choose(noise, steps, shift, Boolean(twice), share, ode, tilt);
    }
    function restart() {
        for (const one of [demo, twin]) {
            if (futures) one.restart_at(FUTURES, seed);
            else one.restart(seed);
        }
        clock = 0;
        path = [demo.places()];
        twins = [twin.places()];
        if (!moving.running) finish();
        view.draw();
    }
    /** Without a film, the reader sees the whole paths. */
    function finish() {
        while (step());
        clock = SECONDS;
    }
    /** A step of all particles; false if they have arrived. */
    function step() {
        if (!demo.advance()) return false;
        path.push(demo.places());
        if (settings.tilt > 0) {
            twin.advance();
            twins.push(twin.places());
        }
        return true;
    }
    function label() {
        run.textContent = moving.running ? "Pause" : "Run";
    }

    const moving = film(stage, (seconds) => {
        clock += seconds;
        if (clock > SECONDS + PAUSE) {
            seed += 1;
            restart();
        }
        // Every step begins when the film passes its time; a fine grid has several per frame.
        while (path.length < times.length && 1 - times[path.length - 1] <= clock / SECONDS) {
            step();
        }
        view.draw();
        measure();
    });

    /** A part of the survey, so short that the film does not stumble. */
    function measure() {
        const until = performance.now() + 4;
        while (!measured() && performance.now() < until) {
            if (survey.advance()) continue;
            const ofOde = curveOfOde.length < curve.length && settings.tilt > 0;
            const points = ofOde ? curveOfOde : curve;
            points.push([NUMBERS_OF_STEPS[points.length], survey.distance()]);
            if (settings.tilt > 0) survey.follow_ode(!ofOde);
            const next = NUMBERS_OF_STEPS[curve.length];
            if (next && (ofOde || settings.tilt === 0)) chooseFor(survey, next);
            below.draw();
        }
    }
    function measured() {
        const points = settings.tilt > 0 ? curveOfOde : curve;
        return points.length === NUMBERS_OF_STEPS.length;
    }

    function drawPaths({ context, colours, width, height }) {
        const now = Math.min(1, clock / SECONDS);
        const split = Math.round(width * 0.68);
        const at = axes(view, { left: 0, top: 0, width: split, height }, {
            x: [0, 1], y: [-REACH, REACH], xLabel: "1 − t: from noise to data", yLabel: "x",
            xTicks: [0, 0.25, 0.5, 0.75, 1],
        });
        const { left, top, right, bottom } = at.inside;
        context.imageSmoothingEnabled = true;
        context.globalAlpha = 0.5;
        context.drawImage(tinted(heat, colours.green), left, top, right - left, bottom - top);
        context.globalAlpha = 1;
        within(view, at, () => {
            for (let row = 0; row < PATHS; row++) {
                line(view, at, passed(row, now), { colour: colours.blue, width: 1 });
            }
            if (settings.tilt > 0) drawMeans(at, now);
            context.globalAlpha = 0.25;
            const heads = Array.from(path[0], (_, row) => [now + spread(row), headOf(row, now)]);
            dots(view, at, heads, { colour: colours.blue, radius: 1.2 });
            context.globalAlpha = 1;
        });
        // The histogram is that of the last whole step, so that its density is known.
        const last = path.length - 1 - (now < 1 - times[path.length - 1] ? 1 : 0);
        const t = times[Math.max(0, last)];
        const box = { left: split, top: 0, width: width - split, height };
        const exact = demo.density(t, -REACH, REACH, 141);
        const most = Math.max(t < 0.12 ? 1.1 : t < 0.5 ? 0.75 : 0.55, 1.1 * Math.max(...exact));
        const aside = axes(view, box, {
            x: [0, most], y: [-REACH, REACH], xTicks: [], yTicks: [], xLabel: `density at t = ${t.toFixed(2)}`,
        });
        within(view, aside, () => {
            bars(aside, path[Math.max(0, last)], colours.blue);
            line(view, aside, Array.from(exact, (p, i) => [p, -REACH + (2 * REACH * i) / 140]),
                { colour: colours.green });
            if (settings.tilt > 0) outline(aside, twins[Math.max(0, last)], colours.orange);
        });
        const names = settings.tilt > 0
            ? [["tilted data", colours.green], ["SDE", colours.blue], ["ODE, same velocity", colours.orange]]
            : [["exact", colours.green], ["particles", colours.blue]];
        names.forEach(([name, colour], i) =>
            write(view, name, width - 8, aside.inside.top + 14 + 15 * i, { colour, align: "right" }));
        say(words(Math.max(0, last), now));
    }

    function words(taken, now) {
        if (futures) {
            return `All ${PARTICLES} particles start at x₁ = ${FUTURES}. ` +
                (settings.noise > 0 ? "Their noise parts them." : "Without noise they share one path.");
        }
        const step = `Step ${taken} of ${settings.steps}. `;
        if (settings.tilt > 0) {
            const [sde, ode] = [path, twins].map((places) => mean(places[taken]).toFixed(2));
            return `${step}Means: SDE ${sde}, ODE ${ode}; the tilted data has ${demo.goal_mean().toFixed(2)}.`;
        }
        return step + (path.length === times.length && now === 1
            ? `Distance from the exact density: ${demo.distance().toFixed(3)}; ` +
              `${PARTICLES} exact draws have ${byChance.few.toFixed(3)} by chance.`
            : "The green density is exact.");
    }

    /** Where particle `row` is when the film is at `now`, between two steps on a straight line. */
    function headOf(row, now) {
        const i = path.length - 1;
        const [from, to] = [1 - times[Math.max(0, i - 1)], 1 - times[i]];
        const share = to > from ? Math.min(1, Math.max(0, (now - from) / (to - from))) : 1;
        const before = path[Math.max(0, i - 1)][row];
        return before + share * (path[i][row] - before);
    }

    function passed(row, now) {
        const points = [];
        for (let i = 0; i < path.length && 1 - times[i] <= now; i++) points.push([1 - times[i], path[i][row]]);
        points.push([now, headOf(row, now)]);
        return points;
    }

    /** The mean of all particles on their way, and the mean of the tilted data. */
    function drawMeans(at, now) {
        const { colours } = view;
        const passed = (places) =>
            places.map((all, i) => [1 - times[i], mean(all)]).filter(([when]) => when <= now);
        line(view, at, passed(path), { colour: colours.blue, width: 4 });
        line(view, at, passed(twins), { colour: colours.orange, width: 4 });
        line(view, at, [[0.93, demo.goal_mean()], [1, demo.goal_mean()]], { colour: colours.green, width: 4 });
    }

    function outline(at, places, colour) {
        const { size, counts } = histogram(places);
        const points = Array.from(counts, (density, bin) => [density, -REACH + (bin + 0.5) * size]);
        line(view, at, points, { colour });
    }

    function bars(at, places, colour) {
        const { size, counts } = histogram(places);
        view.context.fillStyle = colour;
        view.context.globalAlpha = 0.45;
        counts.forEach((density, bin) => {
            const [low, high] = [at.y(-REACH + bin * size), at.y(-REACH + (bin + 1) * size)];
            view.context.fillRect(at.x(0), high, at.x(density) - at.x(0), low - high - 0.5);
        });
        view.context.globalAlpha = 1;
    }

    function drawCurve({ colours, width, height }) {
        const at = axes(below, { left: 0, top: 0, width, height }, {
            x: [2.7, 220], y: [0.005, 2], logX: true, logY: true, xTicks: [3, 5, 10, 20, 50, 100, 200],
            yTicks: [0.01, 0.1, 1], xLabel: "steps N", yLabel: "distance",
        });
        within(below, at, () => {
            line(below, at, [[2.7, byChance.many], [220, byChance.many]],
                { colour: colours.green, width: 1.5, dash: [5, 4] });
            for (const [points, colour] of [[curve, colours.blue], [curveOfOde, colours.orange]]) {
                line(below, at, points, { colour });
                dots(below, at, points, { colour, radius: 3 });
            }
        });
        write(below, `${MANY} exact draws, by chance`, at.inside.left + 6, at.y(byChance.many) - 5,
            { colour: colours.green });
    }

    label();
    choose();
    if (lessMotion()) {
        finish();
        const whole = () => {
            measure();
            if (!measured()) setTimeout(whole, 0);
        };
        whole();
    } else {
        moving.start();
    }
    label();
}

function mean(values) {
    return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Densities of places in bins of a size. */
function histogram(places) {
    const counts = new Float32Array(56);
    const size = (2 * REACH) / counts.length;
    for (const x of places) {
        const bin = Math.floor((x + REACH) / size);
        if (bin >= 0 && bin < counts.length) counts[bin] += 1 / (places.length * size);
    }
    return { size, counts };
}

/** A small shift to the side, so that particles do not hide one another. */
function spread(row) {
    return (((row * 0.618034) % 1) - 0.5) * 0.02;
}

/** The exact density at all times as the opacity of an image: columns are times, rows are places. */
function densities(demo) {
    const [columns, rows] = [90, 120];
    const alpha = new Uint8ClampedArray(columns * rows);
    for (let column = 0; column < columns; column++) {
        const density = demo.density(1 - column / (columns - 1), REACH, -REACH, rows);
        density.forEach((p, row) => {
            alpha[row * columns + column] = 255 * Math.min(1, Math.sqrt(p));
        });
    }
    return { columns, rows, alpha };
}

let cached = {};
/** The image of densities in a colour. */
function tinted(densities, colour) {
    if (cached.colour === colour && cached.densities === densities) return cached.image;
    const { columns, rows, alpha } = densities;
    const image = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const context = image.getContext("2d");
    context.fillStyle = colour;
    context.fillRect(0, 0, columns, rows);
    const pixels = context.getImageData(0, 0, columns, rows);
    alpha.forEach((value, i) => (pixels.data[4 * i + 3] = value));
    context.putImageData(pixels, 0, 0);
    cached = { colour, densities, image };
    return image;
}
