// What builds need works in the sandbox that keeps the attacks of this folder in: JVMs with every
// collector, compilers, processes started the way build tools start them, git.
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/jvm/java.h"
#include "tests/supervisor/harness.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {

namespace {

using testing::HasSubstr;

// Threads, garbage of every age, a child process through the shell as Maven's Surefire starts its
// JVMs, TCP on loopback, a selector, a mapped file.
constexpr char kWork[] = R"java(
import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

public class Work {
  static byte[][] old = new byte[256][];

  static void fill() {
    for (int i = 0; i < 2000; i++) old[i % old.length] = new byte[16 << 10];
  }

  static void connect() throws Exception {
    try (ServerSocketChannel server = ServerSocketChannel.open(); Selector selector = Selector.open()) {
      server.bind(new InetSocketAddress("127.0.0.1", 0)).configureBlocking(false);
      server.register(selector, SelectionKey.OP_ACCEPT);
      try (Socket client = new Socket("127.0.0.1", server.socket().getLocalPort())) {
        if (selector.select(10000) != 1) throw new Exception("nobody connected");
      }
    }
  }

  static void map() throws Exception {
    Path file = Files.createTempFile("work", "");
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      MappedByteBuffer bytes = channel.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
      bytes.put(0, (byte) 1);
      bytes.force();
      if (channel.lock() == null) throw new Exception("no lock");
    }
    Files.delete(file);
  }

  static void spawn() throws Exception {
    Process child = new ProcessBuilder("/bin/sh", "-c", "cd /tmp && echo child && exit 7")
        .redirectErrorStream(true).start();
    String said = new String(child.getInputStream().readAllBytes());
    if (child.waitFor() != 7 || !said.equals("child\n")) throw new Exception("child: " + said);
  }

  public static void main(String[] arguments) throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(8);
    List<Future<?>> work = new ArrayList<>();
    for (int i = 0; i < 8; i++) work.add(threads.submit(Work::fill));
    for (Future<?> one : work) one.get();
    System.gc();
    connect();
    map();
    spawn();
    threads.shutdown();
    System.out.println("worked");
  }
}
)java";

struct Jdk : JavaInstall {};
void PrintTo(const Jdk& jdk, std::ostream* out) { *out << jdk.path; }

class Workload : public SupervisorTest {
 protected:
  // A payload with room for a build, and what it printed.
  std::string Run(const std::string& script) {
    pb::LaunchSpec spec = Shell(script);
    spec.mutable_cgroup()->set_memory_bytes(1 << 30);
    spec.mutable_cgroup()->set_pids(512);
    spec.mutable_program()->add_env("HOME=/local");
    EXPECT_OK(Start(spec));
    std::optional<pb::ExitRecord> exit;  // a dozen JVMs may take more than one deadline
    for (int tries = 0; tries < 8 && !exit; ++tries) exit = watcher().WaitExit();
    EXPECT_TRUE(exit && exit->message().empty());
    return Stdout() + Stderr();
  }
};

std::vector<Jdk> Jdks() {
  std::vector<Jdk> jdks;
  const auto found = FindJavaHomes({"/usr/lib/jvm/*"});
  if (!found.ok()) return jdks;
  for (const JavaInstall& java : *found) {
    if (PathExists(java.path + "/bin/javac")) jdks.push_back({java});
  }
  return jdks;
}

class Jvm : public Workload, public testing::WithParamInterface<Jdk> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Jvm);

TEST_P(Jvm, WorksWithEveryCollectorAndEveryWayToStartAProcess) {
  const std::string spawn = "-XX:+UseSerialGC -Djdk.lang.Process.launchMechanism=";
  const std::vector<std::string> ways = {
      "-XX:+UseSerialGC",     "-XX:+UseParallelGC",  "-XX:+UseG1GC",  "-XX:+UseZGC", "-XX:+UseNUMA",
      "-XX:+UseShenandoahGC", spawn + "POSIX_SPAWN", spawn + "VFORK", spawn + "FORK"};
  ASSERT_OK(WriteFileAtomic(Local("Work.java"), kWork, 0644));
  const std::string bin = GetParam().path + "/bin/";
  std::string script = bin + "javac -J-Xmx256m -d classes Work.java || exit 1\n";
  for (const std::string& way : ways) {
    absl::StrAppend(&script, "echo \"", way, " $(", bin, "java -Xmx192m ", way,
                    " -cp classes Work 2>&1 | grep -E 'worked|not supported|Unrecognized')\"\n");
  }
  const std::string said = Run(script);
  for (const std::string& way : ways) {
    if (absl::StrContains(said, way + " Option") ||
        absl::StrContains(said, way + " Unrecognized")) {
      std::cout << "not in this JDK: " << way << "\n";
      continue;
    }
    EXPECT_THAT(said, HasSubstr(way + " worked\n"));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryJdk, Jvm, testing::ValuesIn(Jdks()),
                         [](const auto& of) { return absl::StrCat("Jdk", of.param.feature); });

// ---- native tools ----

TEST_F(Workload, AJdkIsThere) {
  if (Jdks().empty()) GTEST_SKIP() << "needs a JDK below /usr/lib/jvm";
}

TEST_F(Workload, ACompilerWorks) {
  REQUIRES_PATH("/usr/bin/cc");
  EXPECT_EQ(Run("printf '#include <stdio.h>\\nint main(){puts(\"built\");}' >a.c &&"
                " cc -O2 -pipe -o a a.c && ./a"),
            "built\n");
}

TEST_F(Workload, GitWorks) {
  REQUIRES_PATH("/usr/bin/git");
  EXPECT_EQ(Run("git init -q a && cd a && git config user.email a@b && git config user.name a &&"
                " echo x >f && git add f && git commit -qm m && git gc -q && git clone -q . ../b &&"
                " cat ../b/f"),
            "x\n");
}

}  // namespace
}  // namespace jenkins_agent
