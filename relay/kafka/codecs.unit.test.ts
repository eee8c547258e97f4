import { describe, expect, test } from "bun:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { compress as compressLz4 } from "lz4js";
import { compress as compressSnappy } from "snappyjs";
import { codecs, decompressedBytesMax } from "./codecs.ts";

const text = Buffer.from("The same words, and the same words again. ".repeat(5_000));
const zeros = Buffer.alloc(decompressedBytesMax + 1);

function xerial(blocks: readonly Buffer[]): Buffer {
  const header = Buffer.from("\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", "latin1");
  const framed = blocks.flatMap((block) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(block.length);
    return [length, block];
  });
  return Buffer.concat([header, ...framed]);
}

const snappy = (data: Buffer) => Buffer.from(compressSnappy(data));
const lz4 = (data: Buffer) => Buffer.from(compressLz4(data));

const batches = [
  ["GZIP", "gzip", gzipSync(text)],
  ["ZSTD", "zstd", zstdCompressSync(text)],
  ["LZ4", "lz4", lz4(text)],
  ["Snappy", "snappy as Java clients send it", xerial([snappy(text.subarray(0, 9_999)), snappy(text.subarray(9_999))])],
  ["Snappy", "snappy without a frame", snappy(text)],
] as const;

describe("a compressed batch", () => {
  for (const [codec, name, compressed] of batches) {
    test(`a batch in ${name} is decompressed`, async () => {
      expect(compressed.length).toBeLessThan(text.length);
      expect((await codecs[codec].decompress(compressed)).equals(text)).toBe(true);
    });
    test(`a batch in ${name} that is cut off or damaged is an error, or decompresses to something else, and never hangs`, async () => {
      for (const part of [0, 3, 5, 20, 40]) {
        const cut = await codecs[codec].decompress(compressed.subarray(0, part)).catch((error: unknown) => error);
        // As long at most: snappy says its length first.
        if (!(cut instanceof Error)) expect((cut as Buffer).equals(text)).toBe(false);
      }
      for (let at = 0; at < Math.min(compressed.length, 40); at++) {
        const damaged = Buffer.from(compressed);
        damaged[at] = 0xff;
        const result = await codecs[codec].decompress(damaged).catch((error: unknown) => error);
        if (!(result instanceof Error)) expect((result as Buffer).length).toBeLessThanOrEqual(decompressedBytesMax);
      }
    });
  }

  const bombs = [
    ["GZIP", gzipSync(zeros)],
    ["ZSTD", zstdCompressSync(zeros)],
    ["LZ4", lz4(zeros)],
    ["Snappy", xerial(Array.from({ length: 5 }, () => snappy(zeros.subarray(0, decompressedBytesMax / 4))))],
  ] as const;
  for (const [codec, bomb] of bombs) {
    test(`a batch in ${codec} that decompresses to more than the limit is an error`, async () => {
      expect(bomb.length).toBeLessThan(decompressedBytesMax / 10);
      await expect(codecs[codec].decompress(bomb)).rejects.toThrow(RangeError);
    });
  }
});
