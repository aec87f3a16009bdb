#include "driver/tools/jar.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/tools/fake_jar.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<pb::JarInfo> Inspect(const std::string& content) {
  absl::StatusOr<Fd> file = MakeSealedMemfd("test-jar", content);
  return file.ok() ? InspectJar(file->get()) : file.status();
}

TEST(JarTest, TheRealOldAgent) {
  const std::string path = absl::StrCat(TEST_CACHE_DIR, "/maven/hudson-remoting-3.0.3.jar");
  REQUIRES_PATH(path);
  ASSERT_OK_AND_ASSIGN(const Fd file, OpenFile(path, O_RDONLY));
  ASSERT_OK_AND_ASSIGN(const pb::JarInfo info, InspectJar(file.get()));
  EXPECT_EQ(info.generation(), pb::LAUNCHER_HUDSON);
  EXPECT_EQ(info.main_class(), "hudson.remoting.jnlp.Main");
  EXPECT_EQ(info.version(), "3.0.3");
  EXPECT_EQ(info.min_java(), 5u);
  ASSERT_OK_AND_ASSIGN(const std::string sha256, Sha256OfFile(file.get()));
  EXPECT_EQ(sha256, "966a9c61bfb1e426120ca42b6cc903148ff1e20f9fb481f3815e1de3f430254f");
}

TEST(JarTest, CurrentAgent) {
  ASSERT_OK_AND_ASSIGN(const pb::JarInfo info, Inspect(CurrentAgentJar()));
  EXPECT_EQ(info.generation(), pb::LAUNCHER_JENKINS);
  EXPECT_EQ(info.main_class(), "hudson.remoting.Launcher");
  EXPECT_EQ(info.version(), "3386.v1");
  EXPECT_EQ(info.min_java(), 17u);
}

TEST(JarTest, VersionResourceBeatsTheManifest) {
  ASSERT_OK_AND_ASSIGN(
      const pb::JarInfo info,
      Inspect(
          MakeJar({{"META-INF/MANIFEST.MF", "Main-Class: hudson.remoting.Launcher\nVersion: 1\n"},
                   {"hudson/remoting/hudson-version.properties", "# x\nversion=2.3\n"},
                   {"hudson/remoting/jnlp/Main.class", ClassFile(52, {"-url"})}})));
  EXPECT_EQ(info.version(), "2.3");
  EXPECT_EQ(info.generation(), pb::LAUNCHER_HUDSON);
  EXPECT_EQ(info.min_java(), 8u);
}

TEST(JarTest, OtherFilesAreNoAgents) {
  const std::string jar = CurrentAgentJar();
  const struct {
    std::string content;
    const char* message;
  } cases[] = {
      {"", "is not a jar file"},
      {"<html>Sign in</html>", "is not a jar file"},
      {jar.substr(0, jar.size() / 2), "is not a jar file"},
      {MakeJar({{"META-INF/MANIFEST.MF", "Main-Class: com.example.Main\n"}}), "is not an agent"},
      {MakeJar({{"hudson/remoting/jnlp/Main.class", "text"}}), "is no class file"},
      {MakeJar({{"hudson/remoting/jnlp/Main.class", std::string(2 << 20, 'x')}}), "too large"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(Inspect(c.content),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.message)));
  }
}

TEST(JarTest, NoBrokenByteDoesHarm) {
  const std::string jar = CurrentAgentJar();
  for (size_t i = 0; i < jar.size(); ++i) {
    std::string broken = jar;
    broken[i] = static_cast<char>(broken[i] ^ 0xff);
    Inspect(broken).status().IgnoreError();  // the sanitizers watch
  }
}

}  // namespace
}  // namespace jenkins_agent
