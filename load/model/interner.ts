/** Small numbers for values: equal values have the same number, and a number leads back to its value. */
export interface Interner<Value> {
  idOf(value: Value): number;
  valueOf(id: number): Value;
}

/** An interner that freezes what it keeps: whoever changes a value in place is found out. */
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

/** One text for all values that are equal: in whatever order their fields were set. */
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
