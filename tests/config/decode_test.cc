#include "driver/config/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/config/msgpack_bytes.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

struct Element {
  std::string name;
  bool has_inner = false;
  int64_t size = 5;
};

// One option of each type, named as in Appendix A: s, n, b, l, m (list of maps), k (block of x, y),
// r (blocks of name and an inner block).
struct Sample {
  std::string s = "dflt";
  int64_t n = 7;
  bool b = false;
  std::optional<bool> o;
  std::optional<int64_t> on;
  std::vector<std::string> l;
  std::map<std::string, std::string> m;
  bool has_k = false;
  std::string x;
  int64_t y = 0;
  std::vector<Element> r;
};

std::vector<Option> OptionsFor(Element& element) {
  return {{"name", &element.name, ""},
          {"inner", OptionBlock{&element.has_inner, {{"size", &element.size, ""}}}, ""}};
}

std::vector<Option> OptionsFor(Sample& sample) {
  return {{"s", &sample.s, ""},
          {"n", &sample.n, ""},
          {"b", &sample.b, ""},
          {"o", &sample.o, ""},
          {"on", &sample.on, ""},
          {"l", &sample.l, ""},
          {"m", &sample.m, ""},
          {"k", OptionBlock{&sample.has_k, {{"x", &sample.x, ""}, {"y", &sample.y, ""}}}, ""},
          {"r", OptionBlockList{[&] { return OptionsFor(sample.r.emplace_back()); }}, ""}};
}

absl::StatusOr<Sample> Decode(const std::string& bytes) {
  Sample sample;
  const absl::Status status = DecodeOptions(bytes, OptionsFor(sample));
  if (!status.ok()) return status;
  return sample;
}

void ExpectError(const std::string& bytes, const std::string& message) {
  EXPECT_THAT(Decode(bytes), StatusIs(absl::StatusCode::kInvalidArgument, message));
}

TEST(DecodeTest, EmptyBytesAndNilKeepDefaults) {
  for (const std::string& bytes :
       {std::string(), kNil, Hex("80"), Hex("81a173c0"), Hex("81a16ec0"), Hex("81a162c0"),
        Hex("81a16cc0"), Hex("81a16dc0"), Hex("81a16bc0"), Hex("81a172c0"), Hex("81a17290")}) {
    ASSERT_OK_AND_ASSIGN(const Sample sample, Decode(bytes));
    EXPECT_EQ(sample.s, "dflt");
    EXPECT_EQ(sample.n, 7);
    EXPECT_FALSE(sample.b);
    EXPECT_EQ(sample.o, std::nullopt);
    EXPECT_EQ(sample.on, std::nullopt);
    EXPECT_THAT(sample.r, IsEmpty());
    EXPECT_THAT(sample.l, IsEmpty());
    EXPECT_THAT(sample.m, IsEmpty());
    EXPECT_FALSE(sample.has_k);
  }
}

TEST(DecodeTest, GoldenScalars) {
  ASSERT_OK_AND_ASSIGN(const Sample text, Decode(Hex("81a173a26869")));
  EXPECT_EQ(text.s, "hi");
  ASSERT_OK_AND_ASSIGN(const Sample empty, Decode(Hex("81a173a0")));
  EXPECT_EQ(empty.s, "");
  ASSERT_OK_AND_ASSIGN(const Sample flag, Decode(Hex("81a162c3")));
  EXPECT_TRUE(flag.b);
  ASSERT_OK_AND_ASSIGN(const Sample unset_or_false, Decode(Hex("81a16fc2")));
  EXPECT_EQ(unset_or_false.o, false);
}

TEST(DecodeTest, NumbersInEveryForm) {
  const std::pair<std::string, int64_t> cases[] = {
      {Hex("81a16e00"), 0},
      {Hex("81a16ecd03e8"), 1000},
      {Hex("81a16ed3ffffffff7fffffff"), -2147483649},
      {Hex("81a16ecf7fffffffffffffff"), INT64_MAX},
      {Map({{"n", Hex("cb4008000000000000")}}), 3},  // 3.0
      {Map({{"n", Str("42")}}), 42},
  };
  for (const auto& [bytes, number] : cases) {
    ASSERT_OK_AND_ASSIGN(const Sample sample, Decode(bytes));
    EXPECT_EQ(sample.n, number);
  }
}

TEST(DecodeTest, NumbersThatAreNotWholeAreRefused) {
  const std::string not_whole = " is not a whole number of at most 19 digits";
  ExpectError(Hex("81a16ecb3ff8000000000000"), "n: 1.5" + not_whole);
  ExpectError(Hex("81a16ea3302e31"), "n: \"0.1\"" + not_whole);
  ExpectError(Hex("81a16eb339323233333732303336383534373735383038"),
              "n: \"9223372036854775808\"" + not_whole);
  ExpectError(Hex("81a16ecfffffffffffffffff"), "n: 1.84467e+19" + not_whole);
  ExpectError(Map({{"n", Hex("cb7ff8000000000000")}}), "n: nan" + not_whole);
  ExpectError(Map({{"n", Str("1" + std::string(400, '0'))}}),
              "n: \"1" + std::string(79, '0') + "...\"" + not_whole);
}

TEST(DecodeTest, GoldenLists) {
  ASSERT_OK_AND_ASSIGN(const Sample two, Decode(Hex("81a16c92a161a162")));
  EXPECT_THAT(two.l, ElementsAre("a", "b"));
  ASSERT_OK_AND_ASSIGN(const Sample with_nil, Decode(Hex("81a16c92a161c0")));
  EXPECT_THAT(with_nil.l, ElementsAre("a"));
  ASSERT_OK_AND_ASSIGN(const Sample empty, Decode(Hex("81a16c90")));
  EXPECT_THAT(empty.l, IsEmpty());
}

TEST(DecodeTest, ListOfMapsIsMergedAndTheLaterWins) {
  ASSERT_OK_AND_ASSIGN(const Sample sample,
                       Decode(Map({{"m", List({Map({{"k", Str("v")}, {"a", Str("1")}}), kNil,
                                               Map({{"a", Str("2")}, {"z", kNil}})})}})));
  EXPECT_THAT(sample.m, ElementsAre(Pair("a", "2"), Pair("k", "v")));
  ASSERT_OK_AND_ASSIGN(const Sample golden, Decode(Hex("81a16d9281a16ba17681a161a162")));
  EXPECT_THAT(golden.m, ElementsAre(Pair("a", "b"), Pair("k", "v")));
}

TEST(DecodeTest, GoldenBlocks) {
  ASSERT_OK_AND_ASSIGN(const Sample empty, Decode(Hex("81a16b82a178c0a179c0")));
  EXPECT_TRUE(empty.has_k);
  EXPECT_EQ(empty.x, "");
  ASSERT_OK_AND_ASSIGN(const Sample set, Decode(Hex("81a16b82a178a161a17903")));
  EXPECT_TRUE(set.has_k);
  EXPECT_EQ(set.x, "a");
  EXPECT_EQ(set.y, 3);
}

TEST(DecodeTest, ANumberMayBeLeftOut) {
  ASSERT_OK_AND_ASSIGN(const Sample sample, Decode(Map({{"on", Num(0)}})));
  EXPECT_EQ(sample.on, 0);
}

TEST(DecodeTest, BlocksKeepTheirOrderAndEachItsOwnDefaults) {
  ASSERT_OK_AND_ASSIGN(
      const Sample sample,
      Decode(Map({{"r", List({Map({{"name", Str("a")}, {"inner", Map({{"size", Num(9)}})}}),
                              Map({{"name", Str("b")}, {"inner", kNil}})})}})));
  ASSERT_EQ(sample.r.size(), 2u);
  EXPECT_EQ(sample.r[0].name, "a");
  EXPECT_TRUE(sample.r[0].has_inner);
  EXPECT_EQ(sample.r[0].size, 9);
  EXPECT_EQ(sample.r[1].name, "b");
  EXPECT_FALSE(sample.r[1].has_inner);
  EXPECT_EQ(sample.r[1].size, 5);
}

TEST(DecodeTest, UnknownKeysAreIgnored) {
  ASSERT_OK_AND_ASSIGN(const Sample sample, Decode(Map({{"zz", List({Map({{"s", Str("no")}})})},
                                                        {"s", Str("yes")},
                                                        {"k", Map({{"zz", kTrue}})}})));
  EXPECT_EQ(sample.s, "yes");
}

TEST(DecodeTest, WrongTypesNameThePathAndNeverTheContent) {
  ExpectError(Map({{"s", kTrue}}), "s: found a bool, expected a string");
  ExpectError(Map({{"n", List({})}}), "n: found a list, expected a number");
  ExpectError(Map({{"b", Str("hunter2")}}), "b: found a string, expected true or false");
  ExpectError(Map({{"l", Str("hunter2")}}), "l: found a string, expected a list of strings");
  ExpectError(Map({{"l", List({Str("a"), Num(1)})}}),
              "l: element 1: found a number, expected a string");
  ExpectError(Map({{"m", Map({})}}), "m: found a map, expected a list of maps of strings");
  ExpectError(Map({{"m", List({Str("hunter2")})}}), "m: found a string, expected a map of strings");
  ExpectError(Map({{"m", List({Map({{"A", Num(1)}})})}}),
              "m: \"A\": found a number, expected a string");
  ExpectError(Map({{"k", Str("hunter2")}}), "k: found a string, expected a block of options");
  ExpectError(Map({{"k", Map({{"y", kTrue}})}}), "k.y: found a bool, expected a number");
  ExpectError(Map({{"r", Map({})}}), "r: found a map, expected a list of blocks");
  ExpectError(Map({{"r", List({Map({}), Str("hunter2")})}}),
              "r[1]: found a string, expected a block of options");
  ExpectError(Map({{"r", List({Map({{"inner", Map({{"size", kTrue}})}})})}}),
              "r[0].inner.size: found a bool, expected a number");
  ExpectError(Str("hunter2"), "found a string, expected a block of options");
}

TEST(DecodeTest, StringsThatNoArgumentCanHoldAreRefused) {
  ExpectError(Map({{"s", Str(std::string("a\0b", 3))}}),
              "s: contains a NUL byte, which no argument or path can hold");
  EXPECT_OK(Decode(Map({{"s", Str(std::string(131071, 'a'))}})));
  ExpectError(Map({{"l", List({Str(std::string(131072, 'a'))})}}),
              "l: element 0: 131072 bytes are too long (allowed: up to 131071)");
}

TEST(DecodeTest, BrokenMsgpackIsReported) {
  ExpectError(Hex("81a173"),
              "not the msgpack of a configuration: ends in the middle of a value, at offset 3");
}

}  // namespace
}  // namespace jenkins_agent
