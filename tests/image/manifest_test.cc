#include "driver/image/manifest.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kOciIndexType[] = "application/vnd.oci.image.index.v1+json";
constexpr char kOciManifestType[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kDockerManifestType[] = "application/vnd.docker.distribution.manifest.v2+json";
const Platform kAmd64 = {.os = "linux", .architecture = "amd64", .variant = "v3"};

std::string Sha(char digit) { return "sha256:" + std::string(64, digit); }

json DescriptorJson(const std::string& type, char digit, int64_t size) {
  return {{"mediaType", type}, {"digest", Sha(digit)}, {"size", size}};
}

json ManifestJson() {
  return {{"schemaVersion", 2},
          {"mediaType", kOciManifestType},
          {"config", DescriptorJson("application/vnd.oci.image.config.v1+json", 'c', 100)},
          {"layers",
           {DescriptorJson("application/vnd.oci.image.layer.v1.tar+gzip", '1', 10),
            DescriptorJson("application/vnd.oci.image.layer.v1.tar+zstd", '2', 20)}}};
}

json EntryJson(char digit, const std::string& os, const std::string& architecture,
               const std::string& variant = "") {
  json entry = DescriptorJson(kOciManifestType, digit, 500);
  entry["platform"] = {{"os", os}, {"architecture", architecture}};
  if (!variant.empty()) entry["platform"]["variant"] = variant;
  return entry;
}

json IndexJson(const std::vector<json>& entries) {
  return {{"schemaVersion", 2}, {"mediaType", kOciIndexType}, {"manifests", entries}};
}

json ConfigJson() {
  return json::parse(R"({"os": "linux", "architecture": "amd64",
      "config": {"Env": ["PATH=/usr/bin", "A=b=c", "EMPTY="], "Entrypoint": ["/agent"],
                 "Cmd": ["-x"], "User": "jenkins", "WorkingDir": "/home/jenkins",
                 "ExposedPorts": {"80/tcp": {}}},
      "rootfs": {"type": "layers", "diff_ids": []}})");
}

TEST(ManifestDocument, OfOciAndDockerIsRead) {
  ASSERT_OK_AND_ASSIGN(const auto document,
                       ParseManifestDocument(ManifestJson().dump(), kOciManifestType));
  const Manifest& manifest = std::get<Manifest>(document);
  EXPECT_EQ(manifest.config.digest.ToString(), Sha('c'));
  EXPECT_EQ(manifest.config.size, 100);
  ASSERT_EQ(manifest.layers.size(), 2u);
  EXPECT_EQ(manifest.layers[1].digest.ToString(), Sha('2'));
  EXPECT_EQ(manifest.layers[1].media_type, "application/vnd.oci.image.layer.v1.tar+zstd");

  json docker = ManifestJson();
  docker["mediaType"] = kDockerManifestType;
  docker["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json";
  EXPECT_OK(
      ParseManifestDocument(docker.dump(), absl::StrCat(kDockerManifestType, "; charset=utf-8")));
  // A layout on disk calls it nothing at all.
  json silent = ManifestJson();
  silent.erase("mediaType");
  EXPECT_OK(ParseManifestDocument(silent.dump(), ""));
}

struct BadManifest {
  const char* name;
  std::function<void(json&)> change;
  std::string why;
};

class ManifestBad : public testing::TestWithParam<BadManifest> {};

TEST_P(ManifestBad, IsRefusedWithTheReason) {
  json document = ManifestJson();
  GetParam().change(document);
  const auto result = ParseManifestDocument(document.dump(), kOciManifestType);
  EXPECT_THAT(result, testing::Not(IsOk()));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(GetParam().why));
}

INSTANTIATE_TEST_SUITE_P(
    Documents, ManifestBad,
    testing::Values(
        BadManifest{"SizeBelowZero", [](json& d) { d["layers"][0]["size"] = -1; }, "'size' -1"},
        BadManifest{"SizeBeyondInt64",
                    [](json& d) { d["layers"][0]["size"] = 18446744073709551615u; }, "'size'"},
        BadManifest{"HugeSize", [](json& d) { d["layers"][0]["size"] = int64_t{1} << 50; },
                    "'size'"},
        BadManifest{"SizeThatIsText", [](json& d) { d["layers"][0]["size"] = "1"; }, "'size'"},
        BadManifest{"SizeMissing", [](json& d) { d["layers"][0].erase("size"); }, "'size'"},
        BadManifest{"HugeConfig", [](json& d) { d["config"]["size"] = 1 << 30; }, "'size'"},
        BadManifest{"DigestThatIsAPath",
                    [](json& d) { d["layers"][0]["digest"] = "sha256:../../etc/shadow"; },
                    "digest"},
        BadManifest{"DigestMissing", [](json& d) { d["config"].erase("digest"); }, "digest"},
        BadManifest{"ConfigMissing", [](json& d) { d.erase("config"); }, "'config'"},
        BadManifest{"LayersMissing", [](json& d) { d.erase("layers"); }, "'layers'"},
        BadManifest{"LayerThatIsNoObject", [](json& d) { d["layers"][0] = 1; }, "not an object"},
        BadManifest{"TooManyLayers",
                    [](json& d) {
                      for (int i = 0; i < 500; ++i) d["layers"].push_back(d["layers"][0]);
                    },
                    "at most 128"},
        BadManifest{"IndexAndManifestAtOnce", [](json& d) { d["manifests"] = json::array(); },
                    "at once"},
        BadManifest{"OtherTypeThanTheServerSays",
                    [](json& d) { d["mediaType"] = kDockerManifestType; }, "calls itself"},
        BadManifest{"SchemaOne",
                    [](json& d) {
                      d = {{"schemaVersion", 1}, {"fsLayers", json::array()}};
                    },
                    "schema 1"},
        BadManifest{"Artifact",
                    [](json& d) { d["config"]["mediaType"] = "application/vnd.cncf.helm.v1+json"; },
                    "not a runnable image"}),
    [](const auto& test) { return test.param.name; });

TEST(ManifestDocument, AnythingElseIsRefused) {
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{"), std::string("null"),
        std::string(100000, '['),
        "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"}) {
    EXPECT_THAT(ParseManifestDocument(text, ""),
                StatusIs(absl::StatusCode::kInvalidArgument, testing::_));
  }
  EXPECT_THAT(ParseManifestDocument(std::string(kMaxManifestBytes + 1, ' '), ""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("longer than")));
}

TEST(PlatformChoice, TheNodesOwnIsTakenAndAttestationsAreNot) {
  const json entries =
      IndexJson({EntryJson('1', "unknown", "unknown"), EntryJson('2', "linux", "arm64", "v8"),
                 EntryJson('3', "linux", "amd64"), EntryJson('4', "linux", "amd64")});
  ASSERT_OK_AND_ASSIGN(const auto document, ParseManifestDocument(entries.dump(), kOciIndexType));
  ASSERT_OK_AND_ASSIGN(const Descriptor chosen, SelectPlatform(std::get<Index>(document), kAmd64));
  EXPECT_EQ(chosen.digest.ToString(), Sha('3'));
}

TEST(PlatformChoice, AVariantIsTakenUpToTheProcessorsLevel) {
  const json entries =
      IndexJson({EntryJson('4', "linux", "amd64", "v4"), EntryJson('2', "linux", "amd64", "v2")});
  ASSERT_OK_AND_ASSIGN(const auto document, ParseManifestDocument(entries.dump(), ""));
  const Index& index = std::get<Index>(document);
  EXPECT_EQ(SelectPlatform(index, kAmd64)->digest.ToString(), Sha('2'));
  const Platform newer = {.os = "linux", .architecture = "amd64", .variant = "v4"};
  EXPECT_EQ(SelectPlatform(index, newer)->digest.ToString(), Sha('4'));
}

TEST(PlatformChoice, AMissingOneListsWhatThereIs) {
  const json entries =
      IndexJson({EntryJson('1', "unknown", "unknown"), EntryJson('2', "linux", "arm64", "v8"),
                 EntryJson('3', "windows", "amd64")});
  ASSERT_OK_AND_ASSIGN(const auto document, ParseManifestDocument(entries.dump(), ""));
  EXPECT_THAT(SelectPlatform(std::get<Index>(document), kAmd64),
              StatusIs(absl::StatusCode::kNotFound,
                       "has nothing for linux/amd64; it has: linux/arm64/v8, windows/amd64"));
}

TEST(PlatformChoice, AnEntryWithoutPlatformIsTheLastChoice) {
  const json entries =
      IndexJson({DescriptorJson(kOciManifestType, '1', 5), EntryJson('2', "linux", "amd64")});
  ASSERT_OK_AND_ASSIGN(const auto document, ParseManifestDocument(entries.dump(), ""));
  EXPECT_EQ(SelectPlatform(std::get<Index>(document), kAmd64)->digest.ToString(), Sha('2'));
  const json alone = IndexJson({DescriptorJson(kOciManifestType, '1', 5)});
  ASSERT_OK_AND_ASSIGN(const auto single, ParseManifestDocument(alone.dump(), ""));
  EXPECT_EQ(SelectPlatform(std::get<Index>(single), kAmd64)->digest.ToString(), Sha('1'));
}

TEST(PlatformChoice, ThisNodeIsAmd64) {
  EXPECT_EQ(HostPlatform().architecture, "amd64");
  EXPECT_THAT(HostPlatform().variant, testing::MatchesRegex("v[1-4]"));
}

TEST(ImageConfig, SaysWhatToRun) {
  ASSERT_OK_AND_ASSIGN(const ImageConfig config, ParseImageConfig(ConfigJson().dump()));
  EXPECT_THAT(config.env, ElementsAre("PATH=/usr/bin", "A=b=c", "EMPTY="));
  EXPECT_THAT(config.entrypoint, ElementsAre("/agent"));
  EXPECT_THAT(config.command, ElementsAre("-x"));
  EXPECT_EQ(config.user, "jenkins");
  EXPECT_EQ(config.work_dir, "/home/jenkins");
}

TEST(ImageConfig, WhatIsNullOrLeftOutIsEmpty) {
  json document = ConfigJson();
  document["config"] = {{"Env", nullptr}, {"Entrypoint", nullptr}};
  ASSERT_OK_AND_ASSIGN(const ImageConfig config, ParseImageConfig(document.dump()));
  EXPECT_TRUE(config.env.empty() && config.entrypoint.empty() && config.user.empty());
  document.erase("config");
  EXPECT_OK(ParseImageConfig(document.dump()));
}

TEST(ImageConfig, BadOnesAreRefused) {
  const auto with = [](const std::function<void(json&)>& change) {
    json document = ConfigJson();
    change(document);
    return ParseImageConfig(document.dump());
  };
  const auto refused = [](const char* why) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why));
  };
  EXPECT_THAT(with([](json& d) { d.erase("rootfs"); }), refused("'rootfs'"));
  EXPECT_THAT(with([](json& d) { d["rootfs"]["diff_ids"] = {"sha256:x"}; }), refused("diff_ids"));
  EXPECT_THAT(with([](json& d) { d["config"]["Env"] = {"NOVALUE"}; }), refused("KEY=VALUE"));
  EXPECT_THAT(with([](json& d) { d["config"]["Env"] = {"=x"}; }), refused("KEY=VALUE"));
  EXPECT_THAT(with([](json& d) { d["config"]["Env"] = {1}; }), refused("'Env'"));
  EXPECT_THAT(with([](json& d) { d["config"]["User"] = std::string("a\0b", 3); }),
              refused("'User'"));
  EXPECT_THAT(with([](json& d) { d["config"]["WorkingDir"] = "x"; }), refused("not absolute"));
}

TEST(CheckImage, ManifestAndConfigMustBelongTogether) {
  const Manifest manifest = {.config = {}, .layers = {Descriptor{}, Descriptor{}}};
  ImageConfig config;
  config.platform.os = "linux";
  config.platform.architecture = "amd64";
  config.diff_ids.resize(1);
  EXPECT_THAT(CheckImage(manifest, config, kAmd64),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("names 1 layers")));
  config.diff_ids.resize(2);
  EXPECT_OK(CheckImage(manifest, config, kAmd64));
  config.platform.architecture = "arm64";
  EXPECT_THAT(
      CheckImage(manifest, config, kAmd64),
      StatusIs(absl::StatusCode::kNotFound, "is for linux/arm64, this node is linux/amd64/v3"));
}

}  // namespace
}  // namespace jenkins_agent
