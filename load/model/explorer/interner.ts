/** Gives each distinct value a small number, so that comparing or storing states is comparing or storing numbers. */
export interface Interner<Value> {
  /** The number of the value. Equal values have the same number. */
  idOf(value: Value): number;
  valueOf(id: number): Value;
}

/** Creates an empty interner. It freezes the values that it keeps, so code that changes one in place throws. */
export function createInterner<Value>(): Interner<Value> {
  const values: Value[] = [];
  const ids = new Map<string, number>();
  return {
    idOf(value) {
      const key = canonical(value);
      let id = ids.get(key);
      if (id === undefined) {
        id = values.length;
        ids.set(key, id);
        values.push(deepFreeze(value));
      }
      return id;
    },
    valueOf(id) {
      const value = values[id];
      if (value === undefined) throw new Error(`There is no value ${id}.`);
      return value;
    },
  };
}

/** A text that is the same for all equal values, in whatever order their fields were set. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, it: unknown) => {
    if (typeof it === "bigint") return `${it}n`;
    if (it instanceof Map) return [...it].sort(([a], [b]) => (a < b ? -1 : 1));
    if (typeof it !== "object" || it === null || Array.isArray(it)) return it;
    return Object.fromEntries(Object.entries(it).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

function deepFreeze<Value>(value: Value): Value {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const each of Object.values(value)) deepFreeze(each);
  }
  return value;
}
