/** Remembers the results of a function of two whole numbers. The second must be below a million. */
export class Memo<Value> {
  readonly #values = new Map<number, Value>();

  get(a: number, b: number, compute: () => Value): Value {
    const key = a * 1_048_576 + b;
    let value = this.#values.get(key);
    if (value === undefined) {
      value = compute();
      this.#values.set(key, value);
    }
    return value;
  }
}
