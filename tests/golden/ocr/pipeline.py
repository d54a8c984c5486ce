"""Reads text in an image the way PaddleOCR 2.9.1 does, with onnxruntime, OpenCV and pyclipper.

Written from PaddleOCR's published steps and constants for the goldens of the crate `ocr`. `PP_OCR_V6`
has the thresholds of the model card of PP-OCRv6 tiny and enlarges images below 128 pixels; `PADDLE_2_9`
has the constants of PaddleOCR 2.9.1. Images whose sides sum to less than 64 are not padded, and lines
are at most 3200 pixels wide, as in PaddleOCR 3.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import onnxruntime
import pyclipper
from shapely.geometry import Polygon


@dataclass
class Options:
    threshold: float = 0.2
    box_threshold: float = 0.4
    unclip: float = 1.4
    candidates: int = 3000
    longest_side: int = 960
    shortest_side: int = 128
    drop_score: float = 0.5
    lines_per_batch: int = 6
    swap_channels: bool = False


PP_OCR_V6 = Options()
PADDLE_2_9 = Options(threshold=0.3, box_threshold=0.6, unclip=1.5, candidates=1000, shortest_side=0)


class Pipeline:
    def __init__(self, directory):
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = session.inter_op_num_threads = 1
        open_ = lambda name: onnxruntime.InferenceSession(
            f"{directory}/{name}", session, providers=["CPUExecutionProvider"])
        self.detector = open_("detector.onnx")
        self.recogniser = open_("recogniser.onnx")
        characters = self.recogniser.get_modelmeta().custom_metadata_map["character"].split("\n")
        self.alphabet = [""] + characters + [" "]

    def read(self, rgb, options):
        """Lines of an RGB image, top to bottom: [(text, score, polygon)]."""
        image = rgb if options.swap_channels else rgb[:, :, ::-1]
        image = np.ascontiguousarray(image)
        boxes = sort_boxes(self.detect(image, options))
        crops = [crop(image, box) for box in boxes]
        lines = self.recognise(crops, options)
        return [(text, score, box.tolist()) for (text, score), box in zip(lines, boxes)
                if score >= options.drop_score]

    # Detection

    def probability(self, image, options):
        height, width = detector_size(*image.shape[:2], options)
        resized = cv2.resize(image, (width, height)).astype(np.float32)
        mean = np.array([0.485, 0.456, 0.406], np.float32)
        std = np.array([0.229, 0.224, 0.225], np.float32)
        normal = (resized * np.float32(1 / 255) - mean) / std
        tensor = np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)
        return self.detector.run(None, {"x": tensor})[0][0, 0]

    def detect(self, image, options):
        probability = self.probability(image, options)
        mask = (probability > options.threshold).astype(np.uint8) * 255
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        height, width = probability.shape
        boxes = []
        for contour in contours[: options.candidates]:
            box, side = rectangle(contour)
            if side < 3 or score(probability, box) < options.box_threshold:
                continue
            box, side = rectangle(unclip(box, options.unclip))
            if side < 5:
                continue
            below, right = image.shape[:2]
            box[:, 0] = np.clip(np.round(box[:, 0] / width * right), 0, right)
            box[:, 1] = np.clip(np.round(box[:, 1] / height * below), 0, below)
            box = clip(clockwise(box.astype(np.int32)), image.shape)
            across, down = np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[0] - box[3])
            if int(across) > 3 and int(down) > 3:
                boxes.append(box)
        return boxes

    # Recognition

    def logits(self, image, padded_width):
        height, width = image.shape[:2]
        resized = min(padded_width, int(np.ceil(48 * (width / float(height)))))
        small = cv2.resize(image, (resized, 48)).astype(np.float32)
        normal = (small.transpose(2, 0, 1) / 255 - 0.5) / 0.5
        tensor = np.zeros((1, 3, 48, padded_width), np.float32)
        tensor[0, :, :, :resized] = normal
        return self.recogniser.run(None, {"x": tensor})[0][0]

    def recognise(self, crops, options):
        ratios = np.array([c.shape[1] / float(c.shape[0]) for c in crops])
        order = np.argsort(ratios, kind="stable")
        lines = [None] * len(crops)
        for start in range(0, len(crops), options.lines_per_batch):
            batch = order[start : start + options.lines_per_batch]
            padded = min(int(48 * max(320 / 48, *ratios[batch])), 3200)
            for index in batch:
                lines[index] = self.decode(self.logits(crops[index], padded))
        return lines

    def decode(self, probabilities):
        best, previous, text, scores = probabilities.argmax(1), 0, "", []
        for index, label in enumerate(best):
            if label != 0 and (index == 0 or label != previous):
                text += self.alphabet[label]
                scores.append(probabilities[index, label])
            previous = label
        return text, float(np.mean(scores)) if scores else 0.0


def detector_size(height, width, options):
    shorter, longer = min(height, width), max(height, width)
    ratio = max(1.0, options.shortest_side / shorter)
    if longer * ratio > options.longest_side:
        ratio = options.longest_side / longer
    multiple = lambda side: max(int(round(int(side * ratio) / 32) * 32), 32)
    return multiple(height), multiple(width)


def rectangle(points):
    """The corners of the smallest rectangle around points, from the top left, and its short side."""
    found = cv2.minAreaRect(points)
    corners = sorted(cv2.boxPoints(found), key=lambda corner: corner[0])
    top_left, bottom_left = sorted(corners[:2], key=lambda corner: corner[1])
    top_right, bottom_right = sorted(corners[2:], key=lambda corner: corner[1])
    return np.array([top_left, top_right, bottom_right, bottom_left]), min(found[1])


def score(probability, box):
    height, width = probability.shape
    left, right = (int(np.clip(f(box[:, 0]), 0, width - 1)) for f in (lambda x: np.floor(x.min()), lambda x: np.ceil(x.max())))
    top, bottom = (int(np.clip(f(box[:, 1]), 0, height - 1)) for f in (lambda y: np.floor(y.min()), lambda y: np.ceil(y.max())))
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    corners = (box - np.array([left, top], box.dtype)).astype(np.int32)
    cv2.fillPoly(mask, corners.reshape(1, -1, 2), 1)
    return cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0]


def unclip(box, ratio):
    polygon = Polygon(box)
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(box, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    grown = offset.Execute(polygon.area * ratio / polygon.length)
    return np.array(grown).reshape(-1, 1, 2)


def clockwise(box):
    total = box.sum(axis=1)
    first, third = np.argmin(total), np.argmax(total)
    rest = np.delete(box, (first, third), axis=0)
    difference = np.diff(rest, axis=1)
    corners = [box[first], rest[np.argmin(difference)], box[third], rest[np.argmax(difference)]]
    return np.array(corners, np.float32)


def clip(box, shape):
    box[:, 0] = np.clip(box[:, 0], 0, shape[1] - 1)
    box[:, 1] = np.clip(box[:, 1], 0, shape[0] - 1)
    return box


def sort_boxes(boxes):
    boxes = sorted(boxes, key=lambda box: (box[0][1], box[0][0]))
    for end in range(len(boxes) - 1):
        for i in range(end, -1, -1):
            upper, lower = boxes[i], boxes[i + 1]
            if abs(lower[0][1] - upper[0][1]) < 10 and lower[0][0] < upper[0][0]:
                boxes[i], boxes[i + 1] = lower, upper
            else:
                break
    return boxes


def crop(image, box):
    width = int(max(np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[2] - box[3])))
    height = int(max(np.linalg.norm(box[0] - box[3]), np.linalg.norm(box[1] - box[2])))
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    matrix = cv2.getPerspectiveTransform(box, corners)
    flat = cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    return np.rot90(flat) if height / width >= 1.5 else flat
