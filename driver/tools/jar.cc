#include "driver/tools/jar.h"

#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <map>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/agent/command.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kBlockBytes = 64 << 10;
constexpr size_t kMaxEntries = 20000;          // a current agent.jar has about 1000
constexpr size_t kMaxEntryBytes = 1 << 20;     // of the entries that are read
constexpr size_t kMaxTextBytes = 128;          // of a version
constexpr uint32_t kJavaOfClassVersion0 = 44;  // class file version 61 = Java 17

constexpr size_t kMaxCopyBytes = 64 << 20;  // unpacked; a current agent.jar has 4 MiB

constexpr char kMetaInf[] = "META-INF/";
constexpr char kManifest[] = "META-INF/MANIFEST.MF";
constexpr char kLauncher[] = "hudson/remoting/Launcher.class";
constexpr char kInboundMain[] = "hudson/remoting/jnlp/Main.class";
constexpr const char* kWanted[] = {kManifest, kLauncher, kInboundMain,
                                   "hudson/remoting/hudson-version.properties",
                                   "hudson/remoting/jenkins-version.properties"};
constexpr absl::string_view kVersionKeys[] = {"version", "Remoting-Version", "Version",
                                              "Implementation-Version"};

using Entries = std::map<std::string, std::string>;

struct FreeArchive {
  void operator()(archive* reader) const { ::archive_read_free(reader); }
};
struct FreeWriter {
  void operator()(archive* writer) const { ::archive_write_free(writer); }
};
using Archive = std::unique_ptr<archive, FreeArchive>;

bool IsWanted(absl::string_view name) {
  for (absl::string_view wanted : kWanted) {
    if (name == wanted) return true;
  }
  return false;
}

absl::Status NotAJar(const Archive& reader) {
  const char* text = ::archive_error_string(reader.get());
  return absl::InvalidArgumentError(
      absl::StrCat("is not a jar file", text == nullptr ? "" : ": ", text == nullptr ? "" : text));
}

absl::StatusOr<std::string> ReadEntry(const Archive& reader) {
  std::string content;
  char block[4096];
  for (;;) {
    const la_ssize_t count = ::archive_read_data(reader.get(), block, sizeof(block));
    if (count < 0) return NotAJar(reader);
    if (count == 0) return content;
    content.append(block, count);
    if (content.size() > kMaxEntryBytes) {
      return absl::InvalidArgumentError("is not an agent: one of its entries is too large");
    }
  }
}

absl::StatusOr<Archive> OpenJar(int fd) {
  if (::lseek(fd, 0, SEEK_SET) != 0) return ErrnoStatus("read");
  Archive reader(::archive_read_new());
  // By the central directory, as a JVM does.
  ::archive_read_support_format_zip_seekable(reader.get());
  if (::archive_read_open_fd(reader.get(), fd, kBlockBytes) != ARCHIVE_OK) return NotAJar(reader);
  return reader;
}

// Calls `visit` with each entry; its content, when wanted, is to be read there.
absl::Status VisitEntries(const Archive& reader,
                          absl::FunctionRef<absl::Status(archive_entry*)> visit) {
  for (size_t count = 0; count < kMaxEntries; ++count) {
    archive_entry* entry = nullptr;
    const int result = ::archive_read_next_header(reader.get(), &entry);
    if (result == ARCHIVE_EOF) return absl::OkStatus();
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN) return NotAJar(reader);
    RETURN_IF_ERROR(visit(entry));
  }
  return absl::InvalidArgumentError("is not an agent: it has too many entries");
}

// "JAR File Specification": the signature files of META-INF itself, in any case of letters.
bool IsSignature(absl::string_view name) {
  if (!absl::StartsWithIgnoreCase(name, kMetaInf)) return false;
  name.remove_prefix(sizeof(kMetaInf) - 1);
  if (absl::StrContains(name, '/')) return false;
  if (absl::StartsWithIgnoreCase(name, "SIG-")) return true;
  for (const char* suffix : {".SF", ".RSA", ".DSA", ".EC"}) {
    if (absl::EndsWithIgnoreCase(name, suffix)) return true;
  }
  return false;
}

struct Listing {
  Entries wanted;
  bool has_signature = false;
};

absl::StatusOr<Listing> ListEntries(int fd) {
  ASSIGN_OR_RETURN(const Archive reader, OpenJar(fd));
  Listing listing;
  RETURN_IF_ERROR(VisitEntries(reader, [&](archive_entry* entry) -> absl::Status {
    const char* name = ::archive_entry_pathname(entry);
    if (name == nullptr) return absl::OkStatus();
    if (IsSignature(name)) listing.has_signature = true;
    if (!IsWanted(name)) return absl::OkStatus();
    ASSIGN_OR_RETURN(listing.wanted[name], ReadEntry(reader));
    return absl::OkStatus();
  }));
  return listing;
}

// "Key: value" of a manifest's main section, "key=value" of a properties file.
std::string Lookup(absl::string_view text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripTrailingAsciiWhitespace(line);
    if (absl::StartsWith(line, "Name:")) break;
    const size_t end = line.find_first_of(":=");
    if (end == absl::string_view::npos || absl::StripAsciiWhitespace(line.substr(0, end)) != key) {
      continue;
    }
    return std::string(absl::StripAsciiWhitespace(line.substr(end + 1)).substr(0, kMaxTextBytes));
  }
  return "";
}

std::string FindVersion(const Entries& entries) {
  for (const char* name : {kWanted[3], kWanted[4], kManifest}) {
    const auto entry = entries.find(name);
    if (entry == entries.end()) continue;
    for (absl::string_view key : kVersionKeys) {
      const std::string version = Lookup(entry->second, key);
      if (!version.empty() && !absl::StrContains(version, "$")) return version;
    }
  }
  return "";
}

// Class file: CAFEBABE, minor (2 bytes), major (2 bytes), JVM specification 4.1.
absl::StatusOr<uint32_t> JavaOfClass(absl::string_view content) {
  if (content.size() < 8 || !absl::StartsWith(content, "\xCA\xFE\xBA\xBE")) {
    return absl::InvalidArgumentError("is not an agent: its main class is no class file");
  }
  const uint32_t major = (static_cast<uint8_t>(content[6]) << 8) | static_cast<uint8_t>(content[7]);
  if (major <= kJavaOfClassVersion0) {
    return absl::InvalidArgumentError("is not an agent: its main class has an unknown version");
  }
  return major - kJavaOfClassVersion0;
}

// Is `text` a string constant of the class? CONSTANT_Utf8: tag 1, length (2 bytes), bytes.
bool HasConstant(absl::string_view content, absl::string_view text) {
  std::string constant = {'\x01', '\0', static_cast<char>(text.size())};
  absl::StrAppend(&constant, text);
  return absl::StrContains(content, constant);
}

// The launcher that takes -url and -secret itself came with Jenkins' remoting; all before, Hudson's
// too, have their options on another main class with secret and name as positional arguments.
bool LauncherTakesUrl(const Entries& entries) {
  const auto launcher = entries.find(kLauncher);
  return launcher != entries.end() && HasConstant(launcher->second, "-url") &&
         HasConstant(launcher->second, "-secret");
}

absl::Status NotWritten(archive* writer) {
  return absl::InternalError(
      absl::StrCat("agent.jar without its signature: ", ::archive_error_string(writer)));
}

// libarchive compares each entry with its checksum.
absl::Status CopyContent(const Archive& reader, archive* writer, size_t& left) {
  std::string block(kBlockBytes, '\0');
  for (;;) {
    const la_ssize_t count = ::archive_read_data(reader.get(), block.data(), block.size());
    if (count < 0) return NotAJar(reader);
    if (count == 0) return absl::OkStatus();
    if (static_cast<size_t>(count) > left) {
      return absl::InvalidArgumentError(
          absl::StrCat("holds more than ", kMaxCopyBytes >> 20, " MiB, which no agent.jar does"));
    }
    left -= count;
    if (::archive_write_data(writer, block.data(), count) != count) return NotWritten(writer);
  }
}

}  // namespace

absl::StatusOr<JarReport> InspectJar(int fd) {
  ASSIGN_OR_RETURN(Listing listing, ListEntries(fd));
  Entries& entries = listing.wanted;
  JarReport report;
  report.is_signed = listing.has_signature;
  pb::JarInfo& info = report.agent;
  if (Lookup(entries[kManifest], "Main-Class") == kLauncherMainClass && LauncherTakesUrl(entries)) {
    info.set_generation(pb::LAUNCHER_JENKINS);
    info.set_main_class(kLauncherMainClass);
  } else if (entries.count(kInboundMain) > 0) {
    info.set_generation(pb::LAUNCHER_HUDSON);
    info.set_main_class(kInboundMainClass);
  } else {
    return absl::InvalidArgumentError(
        "is not an agent: it has neither hudson.remoting.Launcher nor hudson.remoting.jnlp.Main");
  }
  ASSIGN_OR_RETURN(
      const uint32_t java,
      JavaOfClass(entries[info.generation() == pb::LAUNCHER_JENKINS ? kLauncher : kInboundMain]));
  info.set_min_java(java);
  info.set_runs_as_agent(IsAgentMainClass(Lookup(entries[kManifest], "Main-Class")));
  info.set_version(FindVersion(entries));
  return report;
}

absl::Status CopyWithoutSignature(int jar_fd, int copy_fd) {
  ASSIGN_OR_RETURN(const Archive reader, OpenJar(jar_fd));
  const std::unique_ptr<archive, FreeWriter> writer(::archive_write_new());
  ::archive_write_set_format_zip(writer.get());
  ::archive_write_zip_set_compression_store(writer.get());
  ::archive_write_set_bytes_in_last_block(writer.get(), 1);  // not padded
  if (::archive_write_open_fd(writer.get(), copy_fd) != ARCHIVE_OK) return NotWritten(writer.get());
  size_t left = kMaxCopyBytes;
  RETURN_IF_ERROR(VisitEntries(reader, [&](archive_entry* entry) -> absl::Status {
    const char* name = ::archive_entry_pathname(entry);
    if (name == nullptr || *name == '\0') {
      return absl::InvalidArgumentError("is not a jar file: an entry has no name");
    }
    if (IsSignature(name)) return absl::OkStatus();
    if (::archive_write_header(writer.get(), entry) != ARCHIVE_OK) return NotWritten(writer.get());
    return CopyContent(reader, writer.get(), left);
  }));
  return ::archive_write_close(writer.get()) == ARCHIVE_OK ? absl::OkStatus()
                                                           : NotWritten(writer.get());
}

absl::StatusOr<std::string> Sha256OfFile(int fd) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)> context(::EVP_MD_CTX_new(),
                                                                          &::EVP_MD_CTX_free);
  if (::EVP_DigestInit_ex(context.get(), ::EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("libcrypto offers no SHA-256");
  }
  std::string block(kBlockBytes, '\0');
  for (off_t offset = 0;;) {
    const ssize_t count = ::pread(fd, block.data(), block.size(), offset);
    if (count < 0) return ErrnoStatus("read");
    if (count == 0) break;
    ::EVP_DigestUpdate(context.get(), block.data(), count);
    offset += count;
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  ::EVP_DigestFinal_ex(context.get(), digest, &size);
  return absl::BytesToHexString({reinterpret_cast<char*>(digest), size});
}

absl::StatusOr<std::string> Sha256OfText(absl::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (::EVP_Digest(text.data(), text.size(), digest, &size, ::EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("libcrypto offers no SHA-256");
  }
  return absl::BytesToHexString({reinterpret_cast<char*>(digest), size});
}

}  // namespace jenkins_agent
