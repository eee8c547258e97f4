import { expect, test } from "bun:test";
import { ConfigError, hostPorts, integer, json, port, readConfig, text, url } from "./config.ts";

test("configuration values are typed, and defaults apply", () => {
  const config = readConfig(
    { NAME: "order", BROKERS: "a:1, b:2" },
    { name: text("NAME"), port: port("PORT", 8080), brokers: hostPorts("BROKERS"), hints: hostPorts("HINTS", "none") },
  );
  expect(config).toEqual({
    name: "order",
    port: 8080,
    brokers: [
      { host: "a", port: 1 },
      { host: "b", port: 2 },
    ],
    hints: [],
  });
});

test("the error names every faulty variable and says what it should hold, but repeats no password", () => {
  const read = () =>
    readConfig(
      { PORT: "80a", COUNT: "11", URL: "http://user:secret@host", HOSTS: "a", JSON: "{" },
      {
        name: text("NAME"),
        port: port("PORT"),
        count: integer("COUNT", { min: 1, max: 10 }),
        url: url("URL", ["mysql:"]),
        hosts: hostPorts("HOSTS"),
        json: json("JSON", (value) => value),
      },
    );
  expect(read).toThrow(ConfigError);
  for (const part of [
    "NAME is not set",
    'PORT must be a whole number from 0 to 65535, but is "80a"',
    "COUNT must be a whole number from 1 to 10",
    "URL must be a URL that starts with mysql://",
    'HOSTS must be host:port, several separated by commas, but has "a"',
    "JSON must be JSON",
  ]) {
    expect(read).toThrow(part);
  }
  expect(read).not.toThrow("secret");
});
