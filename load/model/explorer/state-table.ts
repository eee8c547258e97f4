/**
 * A set of states that numbers them in the order in which they were added. A state is `width` whole numbers, and takes
 * 4 bytes for each.
 */
export interface StateTable {
  size(): number;
  /** Adds the state unless it is there already. The result is an object that the next call overwrites. */
  add(state: Int32Array): { readonly id: number; readonly isNew: boolean };
  /** Copies the state with the number `id` into `into`. */
  read(id: number, into: Int32Array): void;
}

/** Creates an empty table. It uses open addressing, and is at most half full. */
export function createStateTable(width: number): StateTable {
  let states = new Int32Array(1_024 * width);
  /** A state's number plus 1; 0 is a free slot. */
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

  function doubleSlots(): void {
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
      if (count * 2 > slots.length) doubleSlots();
      return result;
    },
    read(id, into) {
      for (let at = 0; at < width; at++) into[at] = states[id * width + at] ?? 0;
    },
  };
}
