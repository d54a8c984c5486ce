// Shows the evaluation at the slider's position; without scripts all are below each other.
for (const figure of document.querySelectorAll('.slider')) {
    const frames = [...figure.querySelectorAll('.frame')];
    const input = figure.querySelector('input');
    const show = () => {
        frames.forEach((frame, i) => frame.hidden = i != input.value);
        figure.querySelector('output').textContent = frames[input.value].dataset.name;
    };
    input.addEventListener('input', show);
    show();
}
