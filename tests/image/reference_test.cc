#include "driver/image/reference.h"

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

const std::string kHex(64, 'a');

struct Good {
  std::string name;
  std::string normal;
};

class ReferenceGood : public testing::TestWithParam<Good> {};

TEST_P(ReferenceGood, IsNormalisedAndReadsBackToItself) {
  ASSERT_OK_AND_ASSIGN(const Reference reference, ParseReference(GetParam().name));
  EXPECT_EQ(reference.ToString(), GetParam().normal);
  ASSERT_OK_AND_ASSIGN(const Reference again, ParseReference(reference.ToString()));
  EXPECT_EQ(again, reference);
}

INSTANTIATE_TEST_SUITE_P(
    Names, ReferenceGood,
    testing::Values(Good{"debian", "docker.io/library/debian:latest"},
                    Good{"debian:12", "docker.io/library/debian:12"},
                    Good{"jenkins/inbound-agent:jdk17", "docker.io/jenkins/inbound-agent:jdk17"},
                    Good{"docker.io/debian", "docker.io/library/debian:latest"},
                    Good{"index.docker.io/debian", "docker.io/library/debian:latest"},
                    Good{"docker://debian", "docker.io/library/debian:latest"},
                    Good{"https://registry.example/a", "registry.example/a:latest"},
                    Good{"localhost/a", "localhost/a:latest"},
                    Good{"registry.example:5000/a/b/c:x", "registry.example:5000/a/b/c:x"},
                    Good{"Registry.Example/a", "registry.example/a:latest"},
                    Good{"127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"},
                    Good{"[::1]:5000/a:1", "[::1]:5000/a:1"},
                    Good{"[fe80::1]/a", "[fe80::1]/a:latest"},
                    Good{"a.b_c__d-e---f", "docker.io/library/a.b_c__d-e---f:latest"},
                    Good{"a/b@sha256:" + kHex, "docker.io/a/b@sha256:" + kHex},
                    Good{"h.x/a:dropped@sha256:" + kHex, "h.x/a@sha256:" + kHex},
                    Good{"a:" + std::string(128, 't'),
                         "docker.io/library/a:" + std::string(128, 't')}));

struct Bad {
  std::string name;
  std::string why;
};

class ReferenceBad : public testing::TestWithParam<Bad> {};

TEST_P(ReferenceBad, IsRefusedAndThePartNamed) {
  EXPECT_THAT(ParseReference(GetParam().name),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().why)));
}

INSTANTIATE_TEST_SUITE_P(
    Names, ReferenceBad,
    testing::Values(
        Bad{"", "repository ''"}, Bad{"/a", "repository"}, Bad{"a/", "repository"},
        Bad{"a//b", "repository"}, Bad{"Debian", "repository 'Debian'"}, Bad{"a..b", "repository"},
        Bad{"a___b", "repository"}, Bad{"a._b", "repository"}, Bad{"-a", "repository"},
        Bad{"a-", "repository"}, Bad{"a b", "repository"}, Bad{"../a", "host '..'"},
        Bad{"h.x/../a", "repository"}, Bad{"h.x/a/../../b", "repository"}, Bad{"a:", "tag ''"},
        Bad{"a:.x", "tag"}, Bad{"a:" + std::string(129, 't'), "tag"}, Bad{"a:b:c", "tag"},
        Bad{"a:t\n", "tag 't\\n'"}, Bad{"a@sha256:short", "digest"},
        Bad{"a@sha256:" + std::string(64, 'A'), "digest"},
        Bad{"a@sha512:" + std::string(128, 'a'), "digest"},
        Bad{"a@sha256:../../" + std::string(58, 'a'), "digest"}, Bad{"h:0/a", "host"},
        Bad{"h:65536/a", "host"}, Bad{"h:/a", "host"}, Bad{"h:+1/a", "host"},
        Bad{"user:pw@h.x/a", "digest"}, Bad{"-h.x/a", "host"}, Bad{"h..x/a", "host"},
        Bad{"[::1/a", "host"}, Bad{"[]:1/a", "host"},
        Bad{std::string("a\0b", 3), "repository 'a\\x00"},
        Bad{"h.x/" + std::string(256, 'a'), "longer than 255"},
        // Found by a fuzzer: the name that was kept, "library/...", could not be read again.
        Bad{std::string(250, 'a'), "longer than 255"},
        Bad{std::string(1025, 'a'), "at most 1024"}));

TEST(Reference, TheDigestDecidesElseTheTag) {
  EXPECT_EQ(ParseReference("a:t")->Target(), "t");
  EXPECT_EQ(ParseReference("a:t@sha256:" + kHex)->Target(), "sha256:" + kHex);
}

TEST(Reference, DockersRegistryAnswersElsewhere) {
  EXPECT_EQ(ApiHost("docker.io"), "registry-1.docker.io");
  EXPECT_EQ(ApiHost("registry.example:5000"), "registry.example:5000");
}

TEST(Digest, IsTheSha256OfTheContentHoweverItComes) {
  // FIPS 180-2, B.1.
  const std::string of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(Digest::Of("abc").hex(), of_abc);
  Sha256 hash;
  hash.Add("a");
  hash.Add("");
  hash.Add("bc");
  EXPECT_EQ(hash.Finish().ToString(), "sha256:" + of_abc);
  EXPECT_EQ(Digest::Of("abc").Short(), "ba7816bf8f01");
}

}  // namespace
}  // namespace jenkins_agent
