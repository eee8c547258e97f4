import type { InferSelectModel } from "drizzle-orm";
import type { MySqlTable } from "drizzle-orm/mysql-core";

/**
 * A row of a drizzle table as raw SQL returns it: keyed by column names, BIGINT as a number or (if it is too large for
 * one) a string, BOOLEAN as 0 or 1.
 */
export type DriverRow<Table extends MySqlTable> = {
  [Column in keyof InferSelectModel<Table, { dbColumnNames: true }>]: DriverValue<
    InferSelectModel<Table, { dbColumnNames: true }>[Column]
  >;
};

type DriverValue<T> = T extends bigint ? number | string : T extends boolean ? number : T;
