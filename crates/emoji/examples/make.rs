fn main() {
    let [noto, fluent, out] = [1, 2, 3].map(|i| std::env::args().nth(i).unwrap());
    let c = emoji::prepare::collection(&std::fs::read(noto).unwrap(), &std::fs::read(fluent).unwrap()).unwrap();
    c.write(std::path::Path::new(&out)).unwrap();
    println!("{}", c.emoji.len());
}
