/** An array of whole numbers that takes 4 bytes for each. */
export class GrowingArray {
  #numbers = new Int32Array(1_024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(value: number): void {
    if (this.#length === this.#numbers.length) {
      const larger = new Int32Array(this.#length * 2);
      larger.set(this.#numbers);
      this.#numbers = larger;
    }
    this.#numbers[this.#length++] = value;
  }

  get(at: number): number {
    const value = this.#numbers[at];
    if (value === undefined || at >= this.#length) throw new Error(`There is no number at ${at}.`);
    return value;
  }
}
