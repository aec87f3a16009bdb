#include "driver/image/decompress.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

// Hands out a text in pieces, as a network does.
class TextInPieces : public ByteSource {
 public:
  TextInPieces(std::string text, size_t piece) : text_(std::move(text)), piece_(piece) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    const size_t count = std::min({size, piece_, text_.size() - position_});
    std::memcpy(buffer, text_.data() + position_, count);
    position_ += count;
    return count;
  }

 private:
  const std::string text_;
  const size_t piece_;
  size_t position_ = 0;
};

std::string Gzip(const std::string& plain) {
  z_stream stream = {};
  ::deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string packed(::deflateBound(&stream, plain.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = plain.size();
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = packed.size();
  ::deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

std::string Zstd(const std::string& plain) {
  std::string packed(::ZSTD_compressBound(plain.size()), '\0');
  packed.resize(::ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3));
  return packed;
}

// Half text, half noise.
std::string Sample(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < size) {
    absl::StrAppend(&text, "line ", random() % 100, "\n");
    for (int i = 0; i < 8; ++i) text += static_cast<char>(random());
  }
  text.resize(size);
  return text;
}

absl::StatusOr<std::string> Unpack(const std::string& packed, size_t piece, GzipLibrary library) {
  TextInPieces source(packed, piece);
  ASSIGN_OR_RETURN(const auto stream, Decompress(source, library));
  std::string plain, buffer(7001, '\0');
  for (;;) {
    ASSIGN_OR_RETURN(const size_t count, stream->Read(buffer.data(), buffer.size()));
    if (count == 0) return plain;
    plain.append(buffer, 0, count);
  }
}

class BothLibraries : public testing::TestWithParam<GzipLibrary> {};
INSTANTIATE_TEST_SUITE_P(Gzip, BothLibraries,
                         testing::Values(GzipLibrary::kBest, GzipLibrary::kZlib),
                         [](const auto& library) {
                           return library.param == GzipLibrary::kZlib ? "Zlib" : "Best";
                         });

TEST_P(BothLibraries, EveryFormatInEveryPieceSize) {
  for (const size_t size : {0, 1, 3, 5000, 70000}) {
    const std::string plain = Sample(size, size);
    for (const size_t piece : {1, 17, 4096, 1 << 20}) {
      EXPECT_EQ(*Unpack(plain, piece, GetParam()), plain);
      EXPECT_EQ(*Unpack(Gzip(plain), piece, GetParam()), plain);
      EXPECT_EQ(*Unpack(Zstd(plain), piece, GetParam()), plain);
    }
  }
}

TEST_P(BothLibraries, MembersFollowEachOtherAndPaddingIsNothing) {
  std::string plain, gzip, zstd;
  for (unsigned i = 0; i < 40; ++i) {
    const std::string part = Sample(i * 97, i);
    plain += part;
    gzip += Gzip(part);
    // zstd:chunked puts its table into a skippable frame.
    zstd += Zstd(part) + std::string("\x50\x2a\x4d\x18\x03\0\0\0abc", 11);
  }
  for (const size_t piece : {1, 100, 1 << 20}) {
    EXPECT_EQ(*Unpack(gzip, piece, GetParam()), plain);
    EXPECT_EQ(*Unpack(gzip + std::string(5000, '\0'), piece, GetParam()), plain);
    EXPECT_EQ(*Unpack(zstd, piece, GetParam()), plain);
  }
}

TEST_P(BothLibraries, WhatIsCutOrDamagedIsAnError) {
  const std::string plain = Sample(100000, 1);
  for (const std::string& packed : {Gzip(plain), Zstd(plain)}) {
    for (const size_t cut : {size_t{5}, size_t{11}, packed.size() / 2, packed.size() - 1}) {
      EXPECT_THAT(Unpack(packed.substr(0, cut), 4096, GetParam()),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("compressed data end")))
          << cut;
    }
  }
  std::string damaged = Gzip(plain);
  damaged[damaged.size() - 6] ^= 1;  // the check sum
  EXPECT_THAT(Unpack(damaged, 4096, GetParam()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("gzip")));
  EXPECT_THAT(Unpack(Gzip(plain) + "garbage", 4096, GetParam()),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::_));
}

TEST_P(BothLibraries, ABombIsStopped) {
  const std::string bomb = Gzip(std::string(150 << 20, '\0'));
  EXPECT_THAT(Unpack(bomb, 1 << 20, GetParam()),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("bomb")));
  // A short file of zeros is none.
  EXPECT_OK(Unpack(Gzip(std::string(32 << 20, '\0')), 1 << 20, GetParam()));
}

TEST(HashingSource, EndsAStreamThatIsTooLong) {
  TextInPieces exact("abc", 2);
  HashingSource fits(exact, 3);
  EXPECT_OK(Drain(fits));
  EXPECT_EQ(fits.Finish(), Digest::Of("abc"));
  TextInPieces longer("abcd", 2);
  HashingSource limited(longer, 3);
  EXPECT_THAT(Drain(limited), StatusIs(absl::StatusCode::kOutOfRange, "is longer than 3 bytes"));
}

}  // namespace
}  // namespace jenkins_agent
