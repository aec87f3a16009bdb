#include "driver/image/tar.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kBlockBytes = 512;
constexpr size_t kBufferBytes = 256 << 10;
constexpr uint32_t kModeBits = 07777;
constexpr int64_t kMaxId = 0xfffffffe;                  // 2^32 - 1 means "leave it" to chown(2)
constexpr int64_t kMaxContentBytes = int64_t{1} << 60;  // sums of sizes do not overflow
constexpr size_t kShownBytes = 200;

// Places of the fields in a header, pax(1) "ustar Interchange Format".
struct Field {
  size_t offset;
  size_t size;
};
constexpr Field kName = {0, 100}, kMode = {100, 8}, kUid = {108, 8}, kGid = {116, 8},
                kSize = {124, 12}, kMtime = {136, 12}, kChecksum = {148, 8}, kLink = {157, 100},
                kMagic = {257, 6}, kMajor = {329, 8}, kMinor = {337, 8}, kPrefix = {345, 155};
constexpr size_t kTypeOffset = 156;

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("its tar stream ", what));
}

absl::Status CutOff() { return Wrong("is cut off"); }

absl::string_view Bytes(absl::string_view header, Field field) {
  return header.substr(field.offset, field.size);
}

absl::string_view Text(absl::string_view header, Field field) {
  const absl::string_view bytes = Bytes(header, field);
  return bytes.substr(0, bytes.find('\0'));
}

// Octal digits between blanks, or GNU's base 256: the first byte 0x80 (or 0xff for negative
// numbers), the rest big-endian. Nothing at all is 0.
std::optional<int64_t> Number(absl::string_view bytes) {
  const auto first = static_cast<unsigned char>(bytes[0]);
  if ((first & 0x80) != 0) {
    const bool negative = (first & 0x40) != 0;
    uint64_t value = negative ? ~uint64_t{0} : 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      unsigned char byte = bytes[i];
      if (i == 0) byte = negative ? byte | 0x80 : byte & 0x7f;
      const unsigned char top = value >> 56;
      if (top != (negative ? 0xff : 0)) return std::nullopt;
      value = value << 8 | byte;
    }
    if ((static_cast<int64_t>(value) < 0) != negative) return std::nullopt;
    return static_cast<int64_t>(value);
  }
  const absl::string_view blanks(" \0", 2);
  while (!bytes.empty() && absl::StrContains(blanks, bytes.front())) bytes.remove_prefix(1);
  while (!bytes.empty() && absl::StrContains(blanks, bytes.back())) bytes.remove_suffix(1);
  int64_t value = 0;  // 12 digits of 3 bits cannot overflow
  for (const char c : bytes) {
    if (c < '0' || c > '7') return std::nullopt;
    value = value * 8 + (c - '0');
  }
  return value;
}

bool ChecksumFits(absl::string_view header) {
  const std::optional<int64_t> wanted = Number(Bytes(header, kChecksum));
  int64_t as_unsigned = 0, as_signed = 0;  // both were written by someone
  for (size_t i = 0; i < kBlockBytes; ++i) {
    const bool own = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    as_unsigned += own ? ' ' : static_cast<unsigned char>(header[i]);
    as_signed += own ? ' ' : static_cast<signed char>(header[i]);
  }
  return wanted == as_unsigned || wanted == as_signed;
}

bool IsZero(absl::string_view block) {
  return std::all_of(block.begin(), block.end(), [](char c) { return c == '\0'; });
}

std::optional<int64_t> Decimal(absl::string_view text) {
  int64_t value = 0;
  if (text.empty() || !std::all_of(text.begin(), text.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(text, &value)) {
    return std::nullopt;
  }
  return value;
}

// "-12.345" in seconds and nanoseconds; digits beyond those are dropped.
bool ReadTime(absl::string_view text, TarEntry& entry) {
  const bool negative = absl::ConsumePrefix(&text, "-");
  const size_t dot = text.find('.');
  const std::optional<int64_t> seconds = Decimal(text.substr(0, dot));
  if (!seconds.has_value()) return false;
  std::string fraction(dot == absl::string_view::npos ? "" : text.substr(dot + 1));
  fraction.resize(9, '0');
  const std::optional<int64_t> nanoseconds = Decimal(fraction);
  if (!nanoseconds.has_value()) return false;
  entry.mtime_s = negative ? -*seconds : *seconds;
  entry.mtime_ns = *nanoseconds;
  if (negative && entry.mtime_ns > 0) {
    --entry.mtime_s;
    entry.mtime_ns = 1'000'000'000 - entry.mtime_ns;
  }
  return true;
}

std::optional<std::string> UrlDecode(absl::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result += text[i];
      continue;
    }
    if (text.size() - i < 3 || !absl::ascii_isxdigit(text[i + 1]) ||
        !absl::ascii_isxdigit(text[i + 2])) {
      return std::nullopt;
    }
    result += absl::HexStringToBytes(text.substr(i + 1, 2));
    i += 2;
  }
  return result;
}

}  // namespace

// What the headers in front of an entry's own said.
struct TarReader::Extensions {
  std::optional<std::string> path, link, mtime;
  std::optional<int64_t> size, uid, gid;
  std::vector<std::pair<std::string, std::string>> xattrs;
  size_t xattr_bytes = 0;

  absl::Status AddXattr(std::string name, std::string value) {
    // bsdtar writes each attribute in two spellings.
    for (auto& known : xattrs) {
      if (known.first == name) {
        known.second = std::move(value);
        return absl::OkStatus();
      }
    }
    xattr_bytes += name.size() + value.size();
    if (xattr_bytes > kMaxTarXattrBytes) return Wrong("has an entry with too many attributes");
    if (name.empty() || absl::StrContains(name, '\0')) return Wrong("has a bad attribute name");
    xattrs.emplace_back(std::move(name), std::move(value));
    return absl::OkStatus();
  }

  absl::Status SetNumber(absl::string_view key, absl::string_view value, int64_t limit,
                         std::optional<int64_t>& number) {
    number.reset();
    if (value.empty()) return absl::OkStatus();  // "as in the header"
    number = Decimal(value);
    if (!number.has_value() || *number > limit) {
      return Wrong(absl::StrCat("has a bad PAX ", key));
    }
    return absl::OkStatus();
  }

  absl::Status SetText(absl::string_view key, absl::string_view value,
                       std::optional<std::string>& text) {
    if (absl::StrContains(value, '\0') || value.size() > kMaxTarPathBytes) {
      return Wrong(absl::StrCat("has a PAX ", key, " with a NUL or longer than ", kMaxTarPathBytes,
                                " bytes"));
    }
    text.reset();
    if (!value.empty()) text = std::string(value);
    return absl::OkStatus();
  }

  absl::Status SetRecord(absl::string_view key, absl::string_view value) {
    if (key == "path") return SetText(key, value, path);
    if (key == "linkpath") return SetText(key, value, link);
    if (key == "mtime") return SetText(key, value, mtime);
    if (key == "size") return SetNumber(key, value, kMaxContentBytes, size);
    if (key == "uid") return SetNumber(key, value, kMaxId, uid);
    if (key == "gid") return SetNumber(key, value, kMaxId, gid);
    if (absl::StartsWith(key, "GNU.sparse.")) {
      return absl::UnimplementedError("its tar stream has sparse files, which are not supported");
    }
    if (absl::ConsumePrefix(&key, "SCHILY.xattr.")) {
      return AddXattr(std::string(key), std::string(value));
    }
    if (absl::ConsumePrefix(&key, "LIBARCHIVE.xattr.")) {
      const std::optional<std::string> name = UrlDecode(key);
      std::string plain;
      if (!name.has_value() || !absl::Base64Unescape(value, &plain)) {
        return Wrong("has a bad attribute");
      }
      return AddXattr(*name, std::move(plain));
    }
    return absl::OkStatus();  // times of access, names of owners, remarks
  }

  // Records "<length> <key>=<value>\n", where the length counts itself.
  absl::Status AddRecords(absl::string_view records) {
    while (!records.empty()) {
      const size_t space = records.substr(0, 20).find(' ');
      const std::optional<int64_t> length =
          space == absl::string_view::npos ? std::nullopt : Decimal(records.substr(0, space));
      if (!length.has_value() || *length <= static_cast<int64_t>(space) + 2 ||
          *length > static_cast<int64_t>(records.size()) || records[*length - 1] != '\n') {
        return Wrong("has a damaged PAX header");
      }
      const absl::string_view record = records.substr(space + 1, *length - space - 2);
      const size_t equals = record.find('=');
      if (equals == absl::string_view::npos || equals == 0) {
        return Wrong("has a damaged PAX header");
      }
      RETURN_IF_ERROR(SetRecord(record.substr(0, equals), record.substr(equals + 1)));
      records.remove_prefix(*length);
    }
    return absl::OkStatus();
  }

  absl::Status Add(char type, const std::string& content) {
    if (type == 'x') return AddRecords(content);
    const absl::string_view text = absl::string_view(content).substr(0, content.find('\0'));
    return SetText(type == 'L' ? "path" : "linkpath", text, type == 'L' ? path : link);
  }
};

namespace {

std::optional<TarType> TypeOf(char flag) {
  switch (flag) {
    case '\0':
    case '0':
    case '7':  // contiguous: a file like others
      return TarType::kFile;
    case '1':
      return TarType::kHardLink;
    case '2':
      return TarType::kSymlink;
    case '3':
      return TarType::kCharDevice;
    case '4':
      return TarType::kBlockDevice;
    case '5':
      return TarType::kDirectory;
    case '6':
      return TarType::kFifo;
    default:
      return std::nullopt;
  }
}

bool IsExtension(char flag) { return flag == 'x' || flag == 'g' || flag == 'L' || flag == 'K'; }

std::string HeaderPath(absl::string_view header) {
  std::string path(Text(header, kName));
  // Only POSIX' magic: GNU's own format has times where the prefix would be.
  if (Bytes(header, kMagic) == absl::string_view("ustar\0", 6) && !Text(header, kPrefix).empty()) {
    path = absl::StrCat(Text(header, kPrefix), "/", path);
  }
  return path;
}

absl::Status ReadNumbers(absl::string_view header, TarEntry& entry) {
  const std::optional<int64_t> mode = Number(Bytes(header, kMode)),
                               uid = Number(Bytes(header, kUid)), gid = Number(Bytes(header, kGid)),
                               mtime = Number(Bytes(header, kMtime)),
                               device_major = Number(Bytes(header, kMajor)),
                               device_minor = Number(Bytes(header, kMinor));
  const auto is_id = [](const std::optional<int64_t>& id) {
    return id.has_value() && *id >= 0 && *id <= kMaxId;
  };
  if (!mode.has_value() || !mtime.has_value() || !is_id(uid) || !is_id(gid)) {
    return Wrong("has a header with bad numbers");
  }
  entry.mode = static_cast<uint32_t>(*mode) & kModeBits;
  entry.uid = static_cast<uint32_t>(*uid);
  entry.gid = static_cast<uint32_t>(*gid);
  entry.mtime_s = *mtime;
  entry.mtime_ns = 0;
  if (entry.type == TarType::kCharDevice || entry.type == TarType::kBlockDevice) {
    if (!is_id(device_major) || !is_id(device_minor)) return Wrong("has a bad device number");
    entry.device_major = static_cast<uint32_t>(*device_major);
    entry.device_minor = static_cast<uint32_t>(*device_minor);
  }
  return absl::OkStatus();
}

}  // namespace

TarReader::TarReader(ByteSource& source) : source_(source), buffer_(kBufferBytes) {}

absl::StatusOr<bool> TarReader::Fill() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  ASSIGN_OR_RETURN(const size_t count, source_.Read(buffer_.data() + end_, buffer_.size() - end_));
  end_ += count;
  filled_ += static_cast<int64_t>(count);
  return count > 0;
}

absl::StatusOr<absl::string_view> TarReader::Block() {
  while (end_ - begin_ < kBlockBytes) {
    ASSIGN_OR_RETURN(const bool more, Fill());
    if (more) continue;
    // The end in front of a header is one too, if a careless writer's.
    if (begin_ == end_) return absl::string_view();
    return CutOff();
  }
  const absl::string_view block(buffer_.data() + begin_, kBlockBytes);
  begin_ += kBlockBytes;
  return block;
}

absl::StatusOr<absl::string_view> TarReader::Content() {
  if (content_left_ == 0) return absl::string_view();
  if (begin_ == end_) {
    ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) return CutOff();
  }
  const auto count = static_cast<size_t>(std::min<int64_t>(content_left_, end_ - begin_));
  const absl::string_view piece(buffer_.data() + begin_, count);
  begin_ += count;
  content_left_ -= static_cast<int64_t>(count);
  return piece;
}

absl::Status TarReader::Skip() {
  content_left_ += padding_left_;
  padding_left_ = 0;
  while (content_left_ > 0) RETURN_IF_ERROR(Content().status());
  return absl::OkStatus();
}

absl::StatusOr<std::string> TarReader::ReadExtension(int64_t size) {
  std::string content;
  content_left_ = size;
  while (content_left_ > 0) {
    ASSIGN_OR_RETURN(const absl::string_view piece, Content());
    content.append(piece.data(), piece.size());
  }
  return content;
}

absl::StatusOr<bool> TarReader::Next(TarEntry& entry) {
  RETURN_IF_ERROR(Skip());
  Extensions extensions;
  for (int count = 0;; ++count) {
    ASSIGN_OR_RETURN(const absl::string_view block, Block());
    if (block.empty() || IsZero(block)) {
      if (count > 0) return Wrong("ends behind a header for an entry that is missing");
      return false;
    }
    const std::string header(block);
    if (!ChecksumFits(header)) return Wrong("has a header with a wrong checksum");
    const char flag = header[kTypeOffset];
    const std::optional<int64_t> size = Number(Bytes(header, kSize));
    if (!size.has_value() || *size < 0 || *size > kMaxContentBytes) {
      return Wrong("has a header with a bad size");
    }
    if (!IsExtension(flag)) return ReadEntry(header, *size, extensions, entry);
    if (*size > kMaxTarExtensionBytes || count == kMaxTarExtensions) {
      return Wrong("has too long or too many extended headers");
    }
    padding_left_ = -*size & (kBlockBytes - 1);
    ASSIGN_OR_RETURN(const std::string content, ReadExtension(*size));
    RETURN_IF_ERROR(Skip());
    // Global ones are remarks of the writer (git's commit id).
    if (flag != 'g') RETURN_IF_ERROR(extensions.Add(flag, content));
  }
}

absl::StatusOr<bool> TarReader::ReadEntry(absl::string_view header, int64_t size,
                                          Extensions& extensions, TarEntry& entry) {
  entry = TarEntry();
  entry.path = extensions.path.value_or(HeaderPath(header));
  entry.link = extensions.link.value_or(std::string(Text(header, kLink)));
  const std::string shown = absl::CHexEscape(entry.path.substr(0, kShownBytes));
  const char flag = header[kTypeOffset];
  const std::optional<TarType> type = TypeOf(flag);
  if (!type.has_value()) {
    return absl::Status(
        flag == 'S' ? absl::StatusCode::kUnimplemented : absl::StatusCode::kInvalidArgument,
        absl::StrCat("its tar stream has the entry '", shown, "' of type '",
                     absl::CHexEscape(std::string(1, flag)), "', which is not supported"));
  }
  entry.type = *type;
  RETURN_IF_ERROR(ReadNumbers(header, entry), "'", shown, "'");
  if (extensions.uid.has_value()) entry.uid = static_cast<uint32_t>(*extensions.uid);
  if (extensions.gid.has_value()) entry.gid = static_cast<uint32_t>(*extensions.gid);
  if (extensions.mtime.has_value() && !ReadTime(*extensions.mtime, entry)) {
    return Wrong(absl::StrCat("has a bad PAX mtime of '", shown, "'"));
  }
  entry.xattrs = std::move(extensions.xattrs);
  // Before ustar a directory was a file whose name ends so.
  if (entry.type == TarType::kFile && absl::EndsWith(entry.path, "/")) {
    entry.type = TarType::kDirectory;
  }
  // Only files have content, whatever their headers say (as in Go's reader, which most of the
  // field uses).
  if (entry.type == TarType::kFile) {
    entry.size = extensions.size.value_or(size);
    content_left_ = entry.size;
    padding_left_ = static_cast<int64_t>(-static_cast<uint64_t>(entry.size) & (kBlockBytes - 1));
  }
  return true;
}

}  // namespace jenkins_agent
