/** A set of states that numbers them in the order of their coming; each is `width` whole numbers, 4 bytes each. */
export interface StateTable {
  size(): number;
  /** The state's number; `isNew` where it was not there. The result is valid until the next call. */
  add(state: Int32Array): { readonly id: number; readonly isNew: boolean };
  /** Copies state `id` into `into`. */
  read(id: number, into: Int32Array): void;
}

/** An empty table: open addressing, at most half full. */
export function createStateTable(width: number): StateTable {
  let states = new Int32Array(1_024 * width);
  /** The state's number plus one; 0 is free. */
  let slots = new Int32Array(4_096);
  let count = 0;
  const result = { id: 0, isNew: false };

  function hash(from: Int32Array, offset: number): number {
    let mixed = 0x811c9dc5;
    for (let at = 0; at < width; at++) {
      mixed = Math.imul(mixed ^ (from[offset + at] ?? 0), 0x9e3779b1);
      mixed ^= mixed >>> 15;
    }
    return mixed >>> 0;
  }

  function isAt(id: number, state: Int32Array): boolean {
    for (let at = 0; at < width; at++) if (states[id * width + at] !== state[at]) return false;
    return true;
  }

  function grow(): void {
    slots = new Int32Array(slots.length * 2);
    const mask = slots.length - 1;
    for (let id = 0; id < count; id++) {
      let slot = hash(states, id * width) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = id + 1;
    }
  }

  return {
    size: () => count,
    add(state) {
      const mask = slots.length - 1;
      let slot = hash(state, 0) & mask;
      for (let taken = slots[slot] ?? 0; taken !== 0; taken = slots[slot] ?? 0) {
        if (isAt(taken - 1, state)) {
          result.id = taken - 1;
          result.isNew = false;
          return result;
        }
        slot = (slot + 1) & mask;
      }
      if ((count + 1) * width > states.length) {
        const larger = new Int32Array(states.length * 2);
        larger.set(states);
        states = larger;
      }
      states.set(state, count * width);
      slots[slot] = count + 1;
      result.id = count++;
      result.isNew = true;
      if (count * 2 > slots.length) grow();
      return result;
    },
    read(id, into) {
      for (let at = 0; at < width; at++) into[at] = states[id * width + at] ?? 0;
    },
  };
}
