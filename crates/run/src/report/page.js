// The switches, sliders and values of a page. Without scripts, the page shows its curves over the
// epochs with their last values, and its images below each other.

// Theme: the system's, until the button is pressed.
const theme = document.getElementById('theme');
theme.hidden = false;
theme.addEventListener('click', () => {
    const root = document.documentElement;
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const now = root.style.colorScheme || (dark ? 'dark' : 'light');
    root.style.colorScheme = now == 'dark' ? 'light' : 'dark';
});

// Images: the first evaluation beside a later one, which a slider chooses.
for (const section of document.querySelectorAll('section.images')) {
    const set = section.classList[1];
    const frames = [...document.querySelectorAll('.frame.' + set)];
    section.querySelector('.pair').append(...frames);
    const later = frames.slice(1);
    const label = section.querySelector('label');
    const [input, output] = label.children;
    label.hidden = later.length < 2;
    input.max = input.value = later.length - 1;
    const show = () => {
        later.forEach((frame, i) => frame.hidden = i != input.value);
        output.textContent = later.length ? 'epoch ' + later[input.value].dataset.epoch : '';
    };
    input.addEventListener('input', show);
    show();
}

// Curves. The edges of a plot are those of chart.rs.
const [LEFT, RIGHT, TOP, BOTTOM] = [66, 626, 10, 206];
const data = JSON.parse(document.getElementById('data').textContent);
const controls = document.getElementById('controls');
const figures = [...document.querySelectorAll('.panel[data-panel]')];
controls.hidden = false;

// The number of images or the time after an epoch of a run.
const progress = (run, epoch, kind) => {
    const all = data.runs[run].progress;
    if (kind == 'epoch') return epoch;
    const i = all.epoch.findIndex(at => at >= epoch);
    return all[kind][i < 0 ? all[kind].length - 1 : i];
};

const hasImages = data.runs.every(run => run.progress.images.some(count => count > 0));
const hasTimes = data.runs.every(run => run.progress.seconds.some(time => time > 0));
controls.x.options[1].disabled = !hasImages;
controls.x.options[2].disabled = !hasTimes;

// Exponential smoothing of the values that precede each point.
const smoothed = (values, share) => {
    let mean = values[0];
    return values.map(value => mean = share * mean + (1 - share) * value);
};

// A panel's lines in the units of the switches.
const linesOf = panel => panel.lines.map(line => ({
    ...line,
    at: line.x.map(epoch => progress(line.run, epoch, controls.x.value)),
    y: smoothed(line.y, Number(controls.smooth.value)),
}));

const range = values => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low) * 0.05 || Math.abs(high) * 1e-3 || 1;
    return [low - room, high + room];
};

// Round numbers in a range.
const labels = ([low, high], count) => {
    const power = 10 ** Math.floor(Math.log10((high - low) / count));
    const step = [1, 2, 5, 10].map(digit => digit * power).find(step => step * count >= high - low);
    const first = Math.ceil(low / step);
    const last = Math.floor(high / step);
    return Array.from({ length: Math.max(last - first + 1, 0) }, (_, i) => (first + i) * step);
};

const short = value => {
    const size = Math.abs(value);
    return value == 0 ? '0' : size < 1e-3 || size >= 1e6 ? value.toExponential(2) : String(+value.toPrecision(4));
};

const NAMES = { epoch: 'epochs', images: 'images' };
const TIMES = [[3600, 'hours'], [60, 'minutes'], [1, 'seconds']];

const svg = (name, attributes, text = '') => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return element;
};

// Draws a panel again, as the switches want it.
const draw = figure => {
    const lines = linesOf(data.panels[figure.dataset.panel]);
    const kind = controls.x.value;
    const xs = lines.flatMap(line => line.at);
    const last = Math.max(...xs);
    const [unit, name] = kind == 'seconds' ? TIMES.find(([unit]) => last >= 2 * unit) || TIMES[2] : [1, NAMES[kind]];
    const bounds = lines.flatMap(line => [...line.y, ...line.low, ...line.high]).filter(y => y != null);
    const log = controls.log.checked && bounds.some(y => y > 0);
    const scale = y => log ? Math.log10(y) : y;
    const [left, right] = [Math.min(...xs) / unit, Math.max(last / unit, Math.min(...xs) / unit + 1e-9)];
    const [low, high] = range(bounds.filter(y => !log || y > 0).map(scale));
    const px = x => LEFT + (x / unit - left) / (right - left) * (RIGHT - LEFT);
    const py = y => BOTTOM - (scale(y) - low) / (high - low) * (BOTTOM - TOP);
    const point = (x, y) => px(x).toFixed(1) + ' ' + py(y).toFixed(1);

    const parts = [...figure.querySelectorAll('.line')];
    const bands = [...figure.querySelectorAll('.band')];
    lines.forEach((line, i) => {
        const shown = line.at.map((x, i) => [x, line.y[i]]).filter(([, y]) => !log || y > 0);
        parts[i].setAttribute('d', shown.map(([x, y], i) => (i ? 'L' : 'M') + point(x, y)).join(''));
        const dots = parts[i].nextElementSibling;
        if (dots?.matches('.dots')) dots.setAttribute('d', shown.map(([x, y]) => 'M' + point(x, y) + 'h0').join(''));
        const bound = side => line[side].map((y, i) => [line.at[i], y]).filter(([, y]) => y != null && (!log || y > 0));
        const edge = [...bound('low'), ...bound('high').reverse()];
        const d = edge.map(([x, y], i) => (i ? 'L' : 'M') + point(x, y)).join('');
        bands[i].setAttribute('d', d && d + 'Z');
    });
    for (const mark of figure.querySelectorAll('.mark')) {
        const x = px(progress(lines[0].run, mark.dataset.x, kind));
        mark.setAttribute('x1', x);
        mark.setAttribute('x2', x);
    }
    const axes = figure.querySelector('.axes');
    axes.replaceChildren(svg('line', { x1: LEFT, x2: RIGHT, y1: BOTTOM, y2: BOTTOM }));
    for (const label of labels([low, high], 5)) {
        const y = log ? Number((10 ** label).toPrecision(2)) : label;
        const at = py(y);
        axes.append(svg('line', { x1: LEFT, x2: RIGHT, y1: at, y2: at }));
        axes.append(svg('text', { x: LEFT - 8, y: at, dy: '0.35em', 'text-anchor': 'end' }, short(y)));
    }
    for (const x of labels([left, right], 6)) {
        const at = LEFT + (x - left) / (right - left) * (RIGHT - LEFT);
        axes.append(svg('text', { x: at, y: BOTTOM + 20, 'text-anchor': 'middle' }, short(x)));
    }
    axes.append(svg('text', { x: RIGHT, y: BOTTOM + 39, 'text-anchor': 'end' }, name));
    figure.place = { px, lines };
};

// Values: a panel shows those at the pointer, or at the cursor that the arrow keys move.
const read = (figure, x) => {
    if (!figure.place) draw(figure);
    const { px, lines } = figure.place;
    const nearest = line => line.at.reduce((best, at, i) => Math.abs(px(at) - x) < Math.abs(px(line.at[best]) - x) ? i : best, 0);
    const places = lines.map(line => [px(line.at[nearest(line)]), line.x[nearest(line)]]);
    const [at, epoch] = places.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    const shown = figure.querySelectorAll('.legend b');
    lines.forEach((line, i) => {
        const point = line.x.indexOf(epoch);
        shown[i].dataset.last ??= shown[i].textContent;
        const interval = line.low[point] == null ? '' : ` (${short(line.low[point])}\u2013${short(line.high[point])})`;
        shown[i].textContent = point < 0 ? '-' : short(line.y[point]) + interval;
    });
    figure.querySelector('output').textContent = 'epoch ' + epoch;
    let cursor = figure.querySelector('.cursor');
    if (!cursor) figure.querySelector('svg').append(cursor = svg('line', { class: 'cursor', y1: TOP, y2: BOTTOM }));
    cursor.setAttribute('x1', at);
    cursor.setAttribute('x2', at);
    figure.cursor = at;
};

const forget = figure => {
    figure.querySelector('.cursor')?.remove();
    figure.querySelector('output').textContent = '';
    figure.querySelectorAll('.legend b').forEach(b => b.textContent = b.dataset.last ?? b.textContent);
    figure.cursor = undefined;
};

// The places of all points of a panel, for the arrow keys.
const step = (figure, direction) => {
    if (!figure.place) draw(figure);
    const { px, lines } = figure.place;
    const places = [...new Set(lines.flatMap(line => line.at.map(px)))].sort((a, b) => a - b);
    const from = figure.cursor ?? (direction > 0 ? -Infinity : Infinity);
    const beyond = places.filter(at => (at - from) * direction > 0.01);
    if (beyond.length) read(figure, direction > 0 ? beyond[0] : beyond[beyond.length - 1]);
};

for (const figure of figures) {
    const plot = figure.querySelector('svg');
    const follow = event => {
        const box = plot.getBoundingClientRect();
        read(figure, (event.clientX - box.left) / box.width * 640);
    };
    plot.addEventListener('pointermove', follow);
    plot.addEventListener('pointerdown', follow);
    plot.addEventListener('pointerleave', event => event.pointerType == 'mouse' && forget(figure));
    plot.addEventListener('blur', () => forget(figure));
    plot.addEventListener('keydown', event => {
        const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (direction) {
            event.preventDefault();
            step(figure, direction);
        }
    });
}
controls.addEventListener('input', () => figures.forEach(figure => { forget(figure); draw(figure); }));
controls.addEventListener('submit', event => event.preventDefault());

// All points as a table: a row for each.
document.getElementById('csv').addEventListener('click', () => {
    const quoted = text => '"' + String(text).replaceAll('"', '""') + '"';
    const rows = [['run', 'panel', 'line', 'epoch', 'images', 'seconds', 'value', 'low', 'high']];
    for (const panel of data.panels) {
        for (const line of panel.lines) {
            line.x.forEach((epoch, i) => rows.push([
                quoted(data.runs[line.run].name), quoted(panel.title), quoted(line.name), epoch,
                hasImages ? progress(line.run, epoch, 'images') : '', hasTimes ? progress(line.run, epoch, 'seconds') : '',
                line.y[i], line.low[i] ?? '', line.high[i] ?? '',
            ]));
        }
    }
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([rows.map(row => row.join(',') + '\n').join('')], { type: 'text/csv' }));
    link.download = document.title + '.csv';
    link.click();
});
