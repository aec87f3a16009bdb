#include "driver/config/msgpack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/config/msgpack_bytes.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

// The value of the only entry of the golden maps { "x": value }.
Value OnlyValue(absl::string_view hex) {
  const auto root = ParseMsgpack(Hex(hex));
  EXPECT_OK(root);
  if (!root.ok()) return Value{};
  const auto& map = std::get<Value::Map>(root->data);
  EXPECT_EQ(map.size(), 1u);
  return map.at(0).value;
}

void ExpectRefused(const std::string& bytes, const std::string& message) {
  EXPECT_THAT(ParseMsgpack(bytes),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

TEST(MsgpackTest, ReadsGoldenIntegersOfEveryWidth) {
  const std::pair<const char*, int64_t> cases[] = {
      {"81a16e00", 0},
      {"81a16e7f", 127},
      {"81a16ecc80", 128},
      {"81a16eccff", 255},
      {"81a16ecd0100", 256},
      {"81a16ecdffff", 65535},
      {"81a16ece00010000", 65536},
      {"81a16eceffffffff", 4294967295},
      {"81a16ecf0000000100000000", 4294967296},
      {"81a16ecf7fffffffffffffff", INT64_MAX},
      {"81a16eff", -1},
      {"81a16ee0", -32},
      {"81a16ed0df", -33},
      {"81a16ed080", -128},
      {"81a16ed1ff7f", -129},
      {"81a16ed2ffff7fff", -32769},
      {"81a16ed3ffffffff7fffffff", -2147483649},
      {"81a16ed20000002a", 42},  // a signed family for a positive number
  };
  for (const auto& [hex, number] : cases) {
    EXPECT_EQ(std::get<int64_t>(OnlyValue(hex).data), number) << hex;
  }
}

TEST(MsgpackTest, ReadsGoldenFloats) {
  EXPECT_EQ(std::get<double>(OnlyValue("81a16ecb3ff8000000000000").data), 1.5);
  EXPECT_EQ(std::get<double>(OnlyValue("81a16eca3fc00000").data), 1.5);
}

TEST(MsgpackTest, KeepsUnsignedBeyondInt64AsDouble) {
  EXPECT_EQ(std::get<double>(OnlyValue("81a16ecfffffffffffffffff").data), 18446744073709551616.0);
}

TEST(MsgpackTest, ReadsGoldenStrings) {
  EXPECT_EQ(std::get<std::string>(OnlyValue("81a173a26869").data), "hi");
  EXPECT_EQ(std::get<std::string>(OnlyValue("81a173a0").data), "");
  EXPECT_EQ(std::get<std::string>(OnlyValue("81a173a2c3a9").data), "é");
  const std::string thirty_two(32, 'a');
  EXPECT_EQ(
      std::get<std::string>(OnlyValue("81a173d920" + absl::BytesToHexString(thirty_two)).data),
      thirty_two);
  EXPECT_EQ(std::get<std::string>(OnlyValue("81a16eda0003302e31").data), "0.1");
}

TEST(MsgpackTest, ReadsGoldenBoolsAndNil) {
  EXPECT_TRUE(std::get<bool>(OnlyValue("81a162c3").data));
  EXPECT_FALSE(std::get<bool>(OnlyValue("81a162c2").data));
  EXPECT_TRUE(OnlyValue("81a173c0").is_nil());
}

TEST(MsgpackTest, ReadsGoldenContainers) {
  const Value list = OnlyValue("81a16c92a161c0");
  EXPECT_EQ(std::get<std::string>(std::get<Value::List>(list.data).at(0).data), "a");
  EXPECT_TRUE(std::get<Value::List>(list.data).at(1).is_nil());
  EXPECT_TRUE(std::get<Value::List>(OnlyValue("81a16c90").data).empty());

  const Value maps = OnlyValue("81a16c9281a16ba17681a161a162");
  const auto& second = std::get<Value::Map>(std::get<Value::List>(maps.data).at(1).data);
  EXPECT_EQ(second.at(0).key, "a");
  EXPECT_EQ(std::get<std::string>(second.at(0).value.data), "b");

  const Value block = OnlyValue("81a16b82a178a161a179c0");
  EXPECT_EQ(std::get<Value::Map>(block.data).at(0).key, "x");
  EXPECT_EQ(std::get<Value::Map>(block.data).at(1).key, "y");
}

TEST(MsgpackTest, RefusesEveryTruncation) {
  const std::string whole = Hex("82a16c92a161a162a16b82a178a161a179cb3ff8000000000000");
  ASSERT_OK(ParseMsgpack(whole));
  for (size_t length = 0; length < whole.size(); ++length) {
    ExpectRefused(whole.substr(0, length), "ends in the middle of a value");
  }
}

TEST(MsgpackTest, RefusesTrailingBytes) { ExpectRefused(Hex("80c0"), "1 bytes after the end"); }

TEST(MsgpackTest, RefusesTypesThatNomadNeverSends) {
  ExpectRefused(Hex("81a16ec40161"), "binary data");
  ExpectRefused(Hex("81a16ed40161"), "an extension type");
  ExpectRefused(Hex("c1"), "bad byte");
  ExpectRefused(Hex("810161"), "key that is not a string");
  ExpectRefused(Hex("8190c0"), "key that is not a string");
}

TEST(MsgpackTest, BoundsDepth) {
  const std::string deepest(kMaxConfigDepth, '\x91');
  EXPECT_OK(ParseMsgpack(deepest + kNil));
  ExpectRefused(deepest + '\x91' + kNil, "more than 8 levels");
  ExpectRefused(std::string(kMaxConfigBytes, '\x91'), "more than 8 levels");
}

TEST(MsgpackTest, HugeCountsOfMissingElementsCostNothing) {
  ExpectRefused(Hex("ddffffffff"), "ends in the middle");
  ExpectRefused(Hex("dfffffffffa161"), "ends in the middle");
  ExpectRefused(Hex("dbffffffff61"), "ends in the middle");
}

TEST(MsgpackTest, BoundsNumberOfValues) {
  // array32 of one value too many, the array itself counted
  ExpectRefused(Hex("dd00004001") + std::string(16385, '\xc0'), "more than 16384 values");
  EXPECT_OK(ParseMsgpack(Hex("dd00003fff") + std::string(16383, '\xc0')));
}

TEST(MsgpackTest, BoundsSize) {
  ExpectRefused(std::string(kMaxConfigBytes + 1, '\xc0'), "is too long (allowed: up to 1048576)");
}

}  // namespace
}  // namespace jenkins_agent
